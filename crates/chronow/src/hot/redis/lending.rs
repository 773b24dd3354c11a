//! Lending connections to one user at a time.

use redis::{AsyncConnectionConfig, Client, ConnectionAddr};

use super::connect::{Route, client};
use super::connection::Connection;
use super::errors::failed;
use super::exclusive::Own;
use crate::{Error, Result};

/// More are closed when they are given back.
const MAX_IDLE: usize = 16;

impl Connection {
    /// A connection for one user: to the server, or to a node of a cluster, of which any will do at first.
    pub(super) async fn own(&self, node: Option<(String, u16)>) -> Result<Own> {
        while let Some(mut own) = self.idle_to(node.as_ref()) {
            // It may have broken meanwhile; then nothing is lost yet.
            if own.is_alive().await {
                return Ok(own);
            }
        }
        // How long an answer may take depends on what is asked.
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(self.config.connect_timeout));
        let connection = match &self.route {
            Route::Single(single) => {
                single.client.get_multiplexed_async_connection_with_config(&settings).await.map_err(failed)?
            }
            Route::Cluster { nodes, .. } => {
                let mut last = Error::validation("a Redis cluster needs at least one node");
                let mut found = None;
                for client in self.clients_of(nodes, node.as_ref())? {
                    match client.get_multiplexed_async_connection_with_config(&settings).await {
                        Ok(connection) => {
                            found = Some(connection);
                            break;
                        }
                        Err(error) => last = failed(error),
                    }
                }
                match found {
                    Some(connection) => connection,
                    None => return Err(last),
                }
            }
            Route::Sentinel(master) => {
                let mut sentinels = master.sentinels.lock().await;
                sentinels.get_async_connection_with_config(&settings).await.map_err(failed)?
            }
        };
        Ok(Own { connection, node, timeout: self.config.response_timeout })
    }

    fn idle_to(&self, node: Option<&(String, u16)>) -> Option<Own> {
        let mut idle = self.idle.lock();
        let at = idle.iter().position(|own| node.is_none() || own.node.as_ref() == node)?;
        Some(idle.swap_remove(at))
    }

    /// For the next one who needs a connection. One that failed must not come back.
    pub(super) fn give_back(&self, own: Own) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(own);
        }
    }

    /// The node, reached as the configured ones are; without one all that are configured.
    fn clients_of(&self, nodes: &[Client], node: Option<&(String, u16)>) -> Result<Vec<Client>> {
        let Some((host, port)) = node else { return Ok(nodes.to_vec()) };
        let configured = self
            .config
            .nodes()?
            .into_iter()
            .next()
            .ok_or_else(|| Error::validation("a Redis cluster needs at least one node"))?;
        let addr = match configured.addr() {
            ConnectionAddr::TcpTls { .. } => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host.clone(), *port),
        };
        Ok(vec![client(configured.set_addr(addr), self.config.certificates()?.as_ref()).map_err(failed)?])
    }
}
