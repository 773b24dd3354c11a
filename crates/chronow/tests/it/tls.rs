//! Redis over TLS, with an authority of one's own and users.

use chronos_db::{Json as Value, json};
use chronow::{Chronow, Config, ErrorKind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use test_support::{RedisServer, free_port};

/// A folder with an authority (`ca.pem`), another one (`other.pem`), and what the first one certifies for
/// `localhost` (`server.pem`, `server.key`).
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, other) = (authority(), authority());
    write("ca.pem", &ours.pem());
    write("other.pem", &other.pem());
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = CertificateParams::new(names).unwrap().signed_by(&key, &ours).unwrap();
    write("server.pem", &server.pem());
    write("server.key", &key.serialize_pem());
    folder
}

async fn connect(section: Value) -> Result<Chronow, chronow::Error> {
    Chronow::connect(Config::from_json(&json!({ "redis": section })).unwrap(), None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_over_tls_with_an_authority_and_a_user_of_ones_own() {
    let folder = certificates();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (ca, port) = (file("ca.pem"), free_port());
    let tls = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
    ]
    .map(str::to_owned);
    let clients = ["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no"].map(str::to_owned);
    let users = ["--user", "default", "off", "--user", "bus", "on", ">s3cret", "~*", "&*", "+@all"]
        .map(str::to_owned);
    let all: Vec<&str> = tls.iter().chain(&clients).chain(&users).map(String::as_str).collect();
    let _server = RedisServer::start(&all).await;
    let url = format!("rediss://localhost:{port}");
    let right = json!({"url": url, "caCert": ca, "username": "bus", "password": "s3cret"});

    // Every way to say the same.
    let by_flag = json!({"url": format!("redis://localhost:{port}"), "tls": true, "caCert": ca, "username": "bus", "password": "s3cret"});
    let in_url = json!({"url": format!("rediss://bus:s3cret@127.0.0.1:{port}/0"), "caCert": ca});
    for section in [right.clone(), by_flag, in_url] {
        let chronow = connect(section).await.unwrap();
        assert!(chronow.ping().await.unwrap().starts_with("Redis "));
        chronow.close().await.unwrap();
    }
    let variables = |name: &str| match name {
        "REDIS_URL" => Some(format!("redis://localhost:{port}")),
        "REDIS_TLS" => Some("true".to_owned()),
        "REDIS_CA_CERT" => Some(ca.clone()),
        "REDIS_USERNAME" => Some("bus".to_owned()),
        "REDIS_PASSWORD" => Some("s3cret".to_owned()),
        _ => None,
    };
    let chronow = Chronow::connect(Config::from_env(variables).unwrap(), None).await.unwrap();

    // Commands, waiting and watching each have connections of their own.
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().await.unwrap();
    let mut changes = chronow.shared().watch("k").await.unwrap();
    let mut stream = subscription.consume::<Value>().await.unwrap();
    let waiting = tokio::spawn(async move {
        use futures::StreamExt as _;
        let message = stream.next().await.unwrap().unwrap();
        let n = message.payload.clone();
        message.ack().await.unwrap();
        n
    });
    topic.publish(&json!(7)).await.unwrap();
    assert_eq!(
        tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await.unwrap().unwrap(),
        json!(7)
    );
    chronow.shared().set("k", &1).await.unwrap();
    let change = tokio::time::timeout(
        std::time::Duration::from_secs(60),
        futures::TryStreamExt::try_next(&mut changes),
    )
    .await;
    assert_eq!(change.unwrap().unwrap().unwrap().key, "k");
    chronow.close().await.unwrap();

    // What must fail, fails, and says why without the password.
    let changed = |key: &str, value: Value| {
        let mut section = right.clone();
        section[key] = value;
        section
    };
    let wrong = [
        changed("caCert", file("other.pem").into()),
        changed("caCert", Value::Null),
        changed("password", "wr0ng".into()),
        changed("username", "nobody".into()),
        changed("url", format!("redis://localhost:{port}").into()),
    ];
    for section in wrong {
        let error = connect(section.clone()).await.expect_err(&section.to_string());
        assert_eq!(error.kind(), ErrorKind::HotTier, "{error}");
        assert!(
            !format!("{error:?}").contains("s3cret") && !format!("{error:?}").contains("wr0ng"),
            "{error:?}"
        );
    }
    let absent = connect(changed("caCert", "/does/not/exist.pem".into())).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::Validation);
    assert!(absent.message().contains("/does/not/exist.pem"), "{absent}");
}
