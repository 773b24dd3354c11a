use std::time::Duration;

use futures::FutureExt;
use test_support::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A server that answers every byte with the next one, and a note of every byte it got.
async fn server() -> (String, mpsc::UnboundedReceiver<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (got, notes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let got = got.clone();
            tokio::spawn(async move {
                while let Ok(byte) = stream.read_u8().await {
                    let _ = got.send(byte);
                    if stream.write_u8(byte + 1).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, notes)
}

async fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    stream.write_u8(byte).await?;
    stream.read_u8().await
}

#[tokio::test]
async fn a_whole_line_passes_everything_on() {
    let (upstream, _notes) = server().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_cut_closes_old_and_new_connections_until_restored() {
    let (upstream, _notes) = server().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut client, 1).await.unwrap();
    proxy.cut();
    assert!(ask(&mut client, 1).await.is_err());
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(ask(&mut client, 1).await.is_err());
    proxy.restore();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
}

#[tokio::test]
async fn dropped_connections_can_be_made_again_at_once() {
    let (upstream, _notes) = server().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut client, 1).await.unwrap();
    proxy.drop_connections();
    assert!(ask(&mut client, 1).await.is_err());
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(ask(&mut client, 5).await.unwrap(), 6);
}

#[tokio::test]
async fn a_stalled_line_keeps_what_was_sent_and_delivers_it_when_restored() {
    let (upstream, mut notes) = server().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut client, 1).await.unwrap();
    assert_eq!(notes.recv().await, Some(1));
    proxy.stall();
    client.write_u8(3).await.unwrap();
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    other.write_u8(9).await.unwrap();
    assert!(notes.try_recv().is_err());
    proxy.restore();
    assert_eq!(client.read_u8().await.unwrap(), 4);
    assert_eq!(other.read_u8().await.unwrap(), 10);
}

#[tokio::test]
async fn on_a_mute_line_the_request_takes_place_and_the_answer_is_lost_with_the_connection() {
    let (upstream, mut notes) = server().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.mute();
    client.write_u8(1).await.unwrap();
    assert_eq!(notes.recv().await, Some(1));
    assert!(client.read_u8().now_or_never().is_none());
    proxy.cut();
    proxy.restore();
    assert!(client.read_u8().await.is_err());
}

#[tokio::test]
async fn a_slow_line_delays_both_ways() {
    let (upstream, _notes) = server().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    proxy.delay(Duration::from_millis(20));
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let asked = Instant::now();
    assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
    assert!(asked.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn the_uri_leads_through_the_proxy() {
    let proxy = Proxy::in_front_of("mongodb://user:secret@127.0.0.1:27017/db?directConnection=true").await;
    assert_eq!(proxy.uri(), format!("mongodb://user:secret@{}/db?directConnection=true", proxy.address()));
}

#[tokio::test]
async fn a_dropped_proxy_closes_its_connections() {
    let (upstream, _notes) = server().await;
    let proxy = Proxy::in_front_of(&upstream).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    ask(&mut client, 1).await.unwrap();
    drop(proxy);
    assert!(client.read_u8().await.is_err());
}
