//! From the options that all commands share to the bus and the shared memory.

use std::time::Duration;

use chronos_db::Json;
use chronow::{Chronow, Config, Scope};
use clap::Args;

use crate::failure::{Failure, one_line};
use crate::open::{Globals, Session};
use crate::stderr::note;

/// How long the end waits for a hot tier that does not answer.
const CLOSE: Duration = Duration::from_secs(5);

/// Which part of the bus or of the shared memory.
#[derive(Debug, Args)]
pub(crate) struct NamespaceArg {
    /// The namespace; without it that of the configuration, else `default`.
    #[arg(long, global = true, value_name = "NAME")]
    namespace: Option<String>,
}

/// An opened configuration and a connection to its hot tier: Redis if the section `chronow` names one, else
/// the messaging database.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) chronow: Chronow,
    session: Session,
}

impl Globals {
    /// For commands that may create what isn't there.
    pub(crate) async fn connect_for_writing(&self, of: &NamespaceArg) -> Result<Connected, Failure> {
        self.connect(of, self.open_for_writing()?).await
    }

    /// For commands that look, and leave nothing behind where nothing is.
    pub(crate) async fn connect_for_reading(&self, of: &NamespaceArg) -> Result<Connected, Failure> {
        self.connect(of, self.open_for_reading()?).await
    }

    async fn connect(&self, of: &NamespaceArg, session: Session) -> Result<Connected, Failure> {
        let section = session.chronos.config().sections.get("chronow").cloned().unwrap_or(Json::Null);
        let config = Config::from_json(&section)?;
        if self.verbose {
            for warning in &config.warnings {
                note(&format!("warning: chronow: {}", one_line(&warning.to_string())));
            }
        }
        let tenant = self.tenant.clone().unwrap_or_else(|| config.defaults.tenant.clone());
        let namespace = of.namespace.clone().unwrap_or_else(|| config.defaults.namespace.clone());
        // Before the builder does, which would blame the configuration.
        Scope::new(&tenant, &namespace)?;
        let config = config.into_builder().tenant(tenant).namespace(namespace).build()?;
        let chronow = Chronow::connect(config, Some(&session.chronos)).await?;
        Ok(Connected { chronow, session })
    }
}

impl Connected {
    /// Closes everything. What the command came to comes first.
    pub(crate) async fn end(self, done: Result<(), Failure>) -> Result<(), Failure> {
        // What hangs is left behind: everything this program said it did is done.
        let closed = match tokio::time::timeout(CLOSE, self.chronow.close()).await {
            Ok(closed) => closed.map_err(Failure::from),
            Err(_) => Ok(()),
        };
        let shut = self.session.close().await;
        done.and(closed).and(shut)
    }
}
