//! Redis servers of one test.

use test_support::{RedisCluster, RedisServer};

#[tokio::test]
async fn a_killed_server_comes_back_with_what_it_acknowledged() {
    let mut server = RedisServer::durable().await;
    assert_eq!(server.run(&["RPUSH", "list", "a", "b c"]).await, "2");
    server.kill();
    assert!(tokio::net::TcpStream::connect(server.address()).await.is_err());
    server.restart().await;
    assert_eq!(server.run(&["LRANGE", "list", "0", "-1"]).await, "a\nb c");
    assert!(server.run(&["GET", "list"]).await.starts_with("WRONGTYPE"));
}

#[tokio::test]
async fn a_cluster_survives_the_death_of_a_master() {
    let mut cluster = RedisCluster::start(3, 1, &[]).await;
    assert_eq!(cluster.addresses().len(), 6);
    // The slot of this key is among the first third.
    assert_eq!(cluster.master(0).run(&["SET", "{bar}", "x"]).await, "OK");
    cluster.hand_over(2).await;
    cluster.fail_over(0).await;
    assert_eq!(cluster.addresses().len(), 5);
}
