use std::collections::BTreeMap;

use bson::{Bson, Document, doc};

use crate::mongod::Mongod;

/// A MongoDB server of one test, without a replica set, that asks for passwords on request. It ends
/// with the test.
#[derive(Debug)]
pub struct MongoServer {
    server: Mongod,
}

impl MongoServer {
    /// A server that lets everybody do everything.
    ///
    /// # Panics
    /// If there is no `mongod`, or it does not answer.
    pub async fn start() -> Self {
        let mut server = Mongod::new();
        server.spawn(&[]);
        server.until_answering().await;
        Self { server }
    }

    /// The connection string, with a user's name and password if they are given.
    #[must_use]
    pub fn uri(&self, user: Option<(&str, &str)>) -> String {
        let login = user.map_or(String::new(), |(name, password)| format!("{name}:{password}@"));
        format!("mongodb://{login}{}/?authSource=admin", self.server.address())
    }

    /// Adds a user with a role in some databases; only as long as everybody may do everything.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn add_user(&self, name: &str, password: &str, role: &str, databases: &[&str]) {
        let roles: Vec<Bson> =
            databases.iter().map(|database| doc! { "role": role, "db": *database }.into()).collect();
        self.server
            .run(
                "admin",
                doc! { "createUser": name, "pwd": password, "roles": roles, "writeConcern": { "j": true } },
            )
            .await;
    }

    /// Starts again, from now on with users and passwords, or for everybody.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn ask_for_passwords(&mut self, ask: bool) {
        self.server.spawn(if ask { &["--auth"] } else { &[] });
        self.server.until_answering().await;
    }

    /// All documents of some databases by their collections and ids; only as long as everybody may do
    /// everything.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn documents(&self, databases: &[&str]) -> BTreeMap<String, Document> {
        let mut all = BTreeMap::new();
        for database in databases {
            let listed = self.server.run(database, doc! { "listCollections": 1, "nameOnly": true }).await;
            let listed = listed
                .get_document("cursor")
                .and_then(|cursor| cursor.get_array("firstBatch"))
                .expect("a list has a batch");
            let names = listed.iter().filter_map(|collection| collection.as_document()?.get_str("name").ok());
            for name in names.filter(|name| !name.starts_with("system.")) {
                all.insert(format!("{database}.{name}"), Document::new());
                for document in self.server.documents(database, name).await {
                    all.insert(format!("{database}.{name} {:?}", document.get("_id")), document);
                }
            }
        }
        all
    }
}
