//! The suite of the documents seam, on MongoDB.

use std::sync::Arc;

use chronos_db::Runtime;
use chronos_db::documents::Documents;
use chronos_db::documents::mongo::MongoDocuments;
use secrecy::SecretString;

async fn on(variable: &str) -> Arc<dyn Documents> {
    let uri = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: start the servers with scripts/services up, then eval \"$(scripts/services env)\"")
    });
    Arc::new(MongoDocuments::new(SecretString::from(uri), Runtime::default()).unwrap())
}

chronos_db::documents_suite!(standalone, on("MONGO_STANDALONE_URI"));
chronos_db::documents_suite!(replica_set, on("MONGO_RS_URI"));
