//! From JSON and variables to a [`Config`].

use super::Config;
use super::builder::ConfigBuilder;
use super::environment::environment;
use super::read::read;
use crate::{Error, Json, Result};

impl Config {
    /// Reads the configuration from JSON: the section `chronow` of a configuration of chronos-db, or a file
    /// of its own.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the path of what is wrong, never with a credential in it.
    pub fn from_json(section: &Json) -> Result<Self> {
        parse(section)?.build()
    }

    /// Reads the configuration from variables such as `REDIS_URL`; empty ones count as not set.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` naming the variable that is wrong.
    ///
    /// ```
    /// use chronow::Config;
    /// let config = Config::from_env(|name| (name == "REDIS_CLUSTER_NODES").then(|| "a:6379, b:6379".to_owned()))?;
    /// assert_eq!(config.redis.unwrap().cluster_nodes.len(), 2);
    /// # Ok::<(), chronow::Error>(())
    /// ```
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        environment(&lookup)?.build()
    }

    /// Reads the configuration from the variables of this process.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_process_env() -> Result<Self> {
        Self::from_env(|name| std::env::var(name).ok())
    }

    /// Reads JSON, and what it doesn't say from variables.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json) and [`from_env`](Self::from_env).
    pub fn from_json_and_env(section: &Json, lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let written = parse(section)?;
        // By itself first, so that what is wrong is named where it stands.
        written.clone().build()?;
        written.or(environment(&lookup)?).build()
    }
}

fn parse(section: &Json) -> Result<ConfigBuilder> {
    read(section).map_err(|error| Error::validation(error.message().to_owned()))
}
