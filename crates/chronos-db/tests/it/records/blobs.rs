//! Base64 properties: objects of their own, references in the document, signed URLs for those alone.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chronos_db::config::{Config, Database, SpaceConnection};
use chronos_db::objects::ObjectStorage;
use chronos_db::{Chronos, Collection, ErrorKind, Json, Route, json};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::pairing::{Pairing, Store, TIMEOUT, document, on_every_pairing, refused};

on_every_pairing!(
    three_kinds_of_files_leave_the_document_and_two_of_them_get_a_text,
    what_is_no_base64_fails_the_whole_write,
    a_file_stays_where_it_is_while_another_one_comes,
    a_file_is_never_copied_into_the_index,
    properties_that_differ_in_case_are_two_files,
    a_nested_file_leaves_the_document,
    a_forged_reference_gets_no_url,
    a_url_gives_the_file_to_anybody_where_the_storage_signs,
    a_restored_item_has_its_files_again,
);

fn maps(properties: &Json) -> Json {
    json!({"collectionMaps": {"users": {"indexedProps": ["id"], "base64Props": properties}}})
}

fn binary() -> Vec<u8> {
    (0..=255).collect()
}

fn reference<'a>(document: &'a Json, property: &str) -> &'a Json {
    &document[property]["ref"]
}

async fn bytes_at(objects: &Arc<dyn ObjectStorage>, key: &Json) -> Vec<u8> {
    objects.get(key.as_str().unwrap()).await.unwrap().expect("the object is there").to_vec()
}

async fn stored(store: &Store, users: &Collection) -> Vec<String> {
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    store.keys(users).await
}

/// T-13, T-14, T-15: four objects beside item.json; a picture is not text whatever is preferred.
async fn three_kinds_of_files_leave_the_document_and_two_of_them_get_a_text(p: &Pairing) {
    let store = p.open_with(&maps(&json!({
        "pdf": {"contentType": "application/pdf"},
        "png": {"contentType": "image/png", "preferredText": true},
        "note": {"contentType": "text/plain"},
    })));
    let users = store.users();
    let text = "Zeile 1\nZeile 2: 漢字";
    let sent = json!({"id": 7, "pdf": STANDARD.encode(b"%PDF-1.7"), "png": STANDARD.encode(binary()), "note": STANDARD.encode(text), "x": "y"});
    let id = users.create(sent).await.unwrap().id;
    assert_eq!(stored(&store, &users).await.len(), 5, "item.json, three blobs, one text");
    let document = document(&users, &id).await;
    let objects = store.bucket();
    let (pdf, png, note) =
        (reference(&document, "pdf"), reference(&document, "png"), reference(&document, "note"));
    assert_eq!(bytes_at(&objects, &pdf["blobKey"]).await, b"%PDF-1.7");
    assert_eq!(bytes_at(&objects, &png["blobKey"]).await, binary());
    assert_eq!(bytes_at(&objects, &note["blobKey"]).await, text.as_bytes());
    assert_eq!(bytes_at(&objects, &note["textKey"]).await, text.as_bytes());
    assert_eq!((pdf.get("textKey"), png.get("textKey")), (None, None));
    assert_eq!((&document["id"], &document["x"]), (&json!(7), &json!("y")));
    assert_eq!(note["blobKey"], json!(format!("users/{id}/v0/note/blob.bin")));
    assert_eq!(store.head(&users, &id).await.get_document("metaIndexed").unwrap(), &bson::doc! { "id": 7 });
}

/// T-12, T-15: also where an earlier property of the same write was fine.
async fn what_is_no_base64_fails_the_whole_write(p: &Pairing) {
    let store =
        p.open_with(&maps(&json!({"a": {"contentType": "text/plain"}, "b": {"contentType": "text/plain"}})));
    let users = store.users();
    let good = STANDARD.encode("good");
    for wrong in [
        json!("plain text"),
        json!("aGk"),
        json!("aG*="),
        json!("aGl="),
        json!("_-8="),
        json!(5),
        json!(["aGk="]),
        json!({"x": 1}),
    ] {
        let error = users.create(json!({"a": good, "b": wrong})).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Externalization, "{wrong}");
        assert!(error.message().contains("Property 'b' is not valid base64"), "{error}");
    }
    assert_eq!(users.list().include_deleted().await.unwrap().items, []);
    let id = users.create(json!({"a": good, "b": ""})).await.unwrap().id;
    assert_eq!(
        refused(users.update(&id, json!({"a": STANDARD.encode("better"), "b": "?"})).await),
        ErrorKind::Externalization
    );
    assert_eq!(users.history(&id).await.unwrap().len(), 1);
    assert!(stored(&store, &users).await.iter().all(|key| key.starts_with(&format!("users/{id}/v0/"))));
    users.update(&id, json!({"a": null})).await.expect("null is not a file");
    let others = store.collection("others");
    others.create(json!({"a": "plain text"})).await.expect("nothing is taken out of other collections");
}

/// N-23, G-48.
async fn a_file_stays_where_it_is_while_another_one_comes(p: &Pairing) {
    let store = p.open_with(&maps(
        &json!({"file": {"contentType": "text/plain"}, "file2": {"contentType": "text/plain"}}),
    ));
    let users = store.users();
    let id = users.create(json!({"file": STANDARD.encode("one")})).await.unwrap().id;
    let before = document(&users, &id).await;
    users.enrich(&id, json!({"file2": STANDARD.encode("two")})).await.unwrap();
    users.update(&id, json!({"n": 1})).await.unwrap();
    let whole = document(&users, &id).await;
    users.replace(&id, whole).force().await.expect("what was read can be written back");
    let after = document(&users, &id).await;
    assert_eq!(after["file"], before["file"]);
    assert_eq!(reference(&after, "file2")["blobKey"], json!(format!("users/{id}/v1/file2/blob.bin")));
    let keys = stored(&store, &users).await;
    assert_eq!(keys.iter().filter(|key| key.ends_with("blob.bin")).count(), 2, "{keys:?}");
    assert_eq!(bytes_at(&store.bucket(), &reference(&after, "file")["textKey"]).await, b"one");
}

/// N-10, G-16.
async fn a_file_is_never_copied_into_the_index(p: &Pairing) {
    let store = p.open_with(
        &json!({"collectionMaps": {"users": {"base64Props": {"file": {"contentType": "image/png"}}}}}),
    );
    let users = store.users();
    let id = users.create(json!({"file": STANDARD.encode(binary()), "n": 1})).await.unwrap().id;
    users.enrich(&id, json!({"m": 2})).await.unwrap();
    assert_eq!(
        store.head(&users, &id).await.get_document("metaIndexed").unwrap(),
        &bson::doc! { "n": 1, "m": 2 }
    );
    for row in store.stored(&users, "ver").await {
        assert!(!row.get_document("metaIndexed").unwrap().contains_key("file"), "{row}");
    }
}

/// N-26, G-57.
async fn properties_that_differ_in_case_are_two_files(p: &Pairing) {
    let store = p.open_with(&maps(
        &json!({"fileA": {"contentType": "image/png"}, "filea": {"contentType": "image/png"}}),
    ));
    let users = store.users();
    let id = users
        .create(json!({"fileA": STANDARD.encode("upper"), "filea": STANDARD.encode("lower")}))
        .await
        .unwrap()
        .id;
    let keys = stored(&store, &users).await;
    assert_eq!(keys.len(), 3, "{keys:?}");
    let document = document(&users, &id).await;
    let objects = store.bucket();
    assert_eq!(bytes_at(&objects, &reference(&document, "fileA")["blobKey"]).await, b"upper");
    assert_eq!(bytes_at(&objects, &reference(&document, "filea")["blobKey"]).await, b"lower");
}

async fn a_nested_file_leaves_the_document(p: &Pairing) {
    let store = p.open_with(&maps(&json!({"mail.body": {"contentType": "text/plain"}})));
    let users = store.users();
    let id = users.create(json!({"mail": {"body": STANDARD.encode("hello"), "to": "x"}})).await.unwrap().id;
    stored(&store, &users).await;
    let document = document(&users, &id).await;
    assert_eq!(document["mail"]["to"], json!("x"));
    assert_eq!(bytes_at(&store.bucket(), &document["mail"]["body"]["ref"]["blobKey"]).await, b"hello");
}

/// N-15, G-25: a reference in the user's data that the server never wrote is data like any other.
async fn a_forged_reference_gets_no_url(p: &Pairing) {
    let store = p.open_with(&maps(&json!({"file": {"contentType": "text/plain"}})));
    let users = store.users();
    let victim = users.create(json!({"file": STANDARD.encode("secret")})).await.unwrap().id;
    let stolen = document(&users, &victim).await["file"].clone();
    let forged = json!({"ref": {"contentBucket": "other-bucket", "blobKey": "other/key"}});
    for property in [&stolen, &forged] {
        let id = users.create(json!({"elsewhere": property, "deep": {"er": property}})).await.unwrap().id;
        users.update(&id, json!({ "again": property })).await.unwrap();
        let view = users.get(&id).presign(Duration::from_secs(60)).await.unwrap().unwrap();
        assert_eq!(view.presigned, []);
        assert_eq!(&view.item["elsewhere"], property, "it stays what the user wrote");
        assert_eq!(refused(users.create(json!({ "file": property })).await), ErrorKind::Externalization);
        assert_eq!(refused(users.update(&id, json!({ "file": property })).await), ErrorKind::Externalization);
    }
}

async fn a_url_gives_the_file_to_anybody_where_the_storage_signs(p: &Pairing) {
    let store = p.open_with(&maps(&json!({"file": {"contentType": "text/plain"}})));
    let users = store.users();
    let id = users
        .create(json!({"file": STANDARD.encode("for everybody"), "n": 1}))
        .ack_stored()
        .await
        .unwrap()
        .id;
    let signed = users.get(&id).presign(Duration::from_secs(60)).await;
    if !p.kind.presigns() {
        return assert_eq!(refused(signed), ErrorKind::PresignUnsupported);
    }
    let view = signed.unwrap().unwrap();
    let [presigned] = &view.presigned[..] else { panic!("{:?}", view.presigned) };
    assert_eq!((&*presigned.path, presigned.expires_in), ("file", Duration::from_secs(60)));
    for url in [&presigned.blob_url, presigned.text_url.as_ref().unwrap()] {
        assert!(fetch(url).await.ends_with("for everybody"), "{url}");
    }
    let listed = users.list().presign(Duration::from_secs(60)).await.unwrap();
    assert_eq!(listed.items[0].presigned.len(), 1);
    assert_eq!(refused(users.get(&id).presign(Duration::ZERO).await), ErrorKind::Validation);
}

async fn a_restored_item_has_its_files_again(p: &Pairing) {
    let store = p.open_with(&maps(&json!({"file": {"contentType": "text/plain"}})));
    let users = store.users();
    let id = users.create(json!({"file": STANDARD.encode("first")})).await.unwrap().id;
    let before = document(&users, &id).await;
    users.update(&id, json!({"file": STANDARD.encode("second")})).await.unwrap();
    users.delete(&id).await.unwrap();
    users.restore(&id).to_version(0).await.unwrap();
    users.update(&id, json!({"n": 1})).await.unwrap();
    stored(&store, &users).await;
    let after = document(&users, &id).await;
    assert_eq!(after["file"], before["file"]);
    assert_eq!(bytes_at(&store.bucket(), &reference(&after, "file")["blobKey"]).await, b"first");
}

/// The answer to a plain GET, head and body.
async fn fetch(url: &str) -> String {
    let rest = url.strip_prefix("http://").expect("the servers of the tests speak plain HTTP");
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream
        .write_all(format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

/// N-16, G-27: the documented set-ups give every tenant its own keys on one endpoint.
#[tokio::test]
async fn tenants_on_one_endpoint_sign_with_their_own_keys() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let server = tokio::spawn(answer_everything(listener, Arc::clone(&seen)));
    let tenant = |name: &str| Database::runtime(name, "main", name).space(name).bucket(format!("of-{name}"));
    let space = |key: &str| SpaceConnection::s3(&*endpoint, key, format!("secret of {key}"));
    let config = Config::builder()
        .connection("main", "embedded::memory:")
        .space("acme", space("KEYACME"))
        .space("globex", space("KEYGLOBEX"))
        .database(tenant("acme"))
        .database(tenant("globex"));
    let chronos = Chronos::open(config.build().unwrap()).unwrap();
    for _ in 0..2 {
        for name in ["acme", "globex"] {
            let users = chronos.with(Route::runtime().tenant(name).collection("users")).unwrap();
            users.create(json!({"n": 1})).ack_stored().await.unwrap();
        }
    }
    chronos.shutdown().await.unwrap();
    server.abort();
    let seen = seen.lock();
    assert_eq!(seen.len(), 4, "{seen:?}");
    for request in seen.iter() {
        let key = if request.contains("/of-acme/") { "Credential=KEYACME/" } else { "Credential=KEYGLOBEX/" };
        assert!(request.contains(key), "{request}");
    }
}

/// Notes the head of every request and answers that all is well.
async fn answer_everything(listener: TcpListener, seen: Arc<Mutex<Vec<String>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut buffer = Vec::new();
            while let Some(request) = next_request(&mut stream, &mut buffer).await {
                seen.lock().push(request);
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"1\"\r\n\r\n")
                    .await
                    .unwrap();
            }
        });
    }
}

async fn next_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
            });
            let whole = end + 4 + length.unwrap_or(0);
            if buffer.len() >= whole {
                buffer.drain(..whole);
                return Some(head);
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
