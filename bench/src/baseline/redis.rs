//! The driver of Redis alone.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, Value, cmd};

use crate::Result;
use crate::server::RedisServer;

/// A stream with one group, as far as the ceilings need them.
#[derive(Clone)]
pub(crate) struct Stream {
    client: Client,
    connection: MultiplexedConnection,
    key: String,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Entry {
    id: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

const GROUP: &str = "group";
const STRANGE: &str = "Redis answered with something else than entries";

fn items(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(STRANGE.into()),
    }
}

/// As the driver has parsed it, without its types around it: these would be half of the ceiling's work.
fn entry(value: Value) -> Result<Entry> {
    let [id, fields] = <[Value; 2]>::try_from(items(value)?).map_err(|_| STRANGE)?;
    match (id, items(fields)?.pop()) {
        (Value::BulkString(id), Some(Value::BulkString(payload))) => Ok(Entry { id, payload }),
        _ => Err(STRANGE.into()),
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection> {
    // A call that blocks waits longer than the driver's half second.
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&patient).await?)
}

impl Stream {
    /// An empty one under this key.
    pub(crate) async fn create(server: &RedisServer, key: &str) -> Result<Self> {
        let client = Client::open(server.url())?;
        let mut connection = connect(&client).await?;
        let () = cmd("DEL").arg(key).query_async(&mut connection).await?;
        let () = cmd("XGROUP")
            .arg("CREATE")
            .arg(key)
            .arg(GROUP)
            .arg("$")
            .arg("MKSTREAM")
            .query_async(&mut connection)
            .await?;
        Ok(Self { client, connection, key: key.to_owned() })
    }

    /// The same stream over a connection of its own.
    pub(crate) async fn another(&self) -> Result<Self> {
        Ok(Self { connection: connect(&self.client).await?, ..self.clone() })
    }

    /// `XADD`s of these payloads in one pipeline.
    pub(crate) async fn add_all(&self, payloads: &[String]) -> Result<()> {
        let mut pipeline = Pipeline::with_capacity(payloads.len());
        for payload in payloads {
            pipeline.cmd("XADD").arg(&self.key).arg("*").arg("payload").arg(payload).ignore();
        }
        Ok(pipeline.query_async(&mut self.connection.clone()).await?)
    }

    pub(crate) async fn add(&self, payload: &str) -> Result<()> {
        let mut add = cmd("XADD");
        add.arg(&self.key).arg("*").arg("payload").arg(payload);
        let _id: String = add.query_async(&mut self.connection.clone()).await?;
        Ok(())
    }

    /// The next entries. With `timeout` it waits so long for the first one.
    pub(crate) async fn read(&self, count: usize, timeout: Option<Duration>) -> Result<Vec<Entry>> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg("consumer").arg("COUNT").arg(count);
        if let Some(timeout) = timeout {
            read.arg("BLOCK").arg(u64::try_from(timeout.as_millis())?);
        }
        read.arg("STREAMS").arg(&self.key).arg(">");
        match read.query_async(&mut self.connection.clone()).await? {
            Value::Nil => Ok(Vec::new()),
            // The stream with its name.
            reply => items(items(reply)?.pop().ok_or(STRANGE)?)?
                .pop()
                .map_or(Err(STRANGE.into()), items)?
                .into_iter()
                .map(entry)
                .collect(),
        }
    }

    /// An `XACK` for each of these in one pipeline.
    pub(crate) async fn ack_each(&self, entries: &[Entry]) -> Result<()> {
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for Entry { id, .. } in entries {
            pipeline.cmd("XACK").arg(&self.key).arg(GROUP).arg(id).ignore();
        }
        Ok(pipeline.query_async(&mut self.connection.clone()).await?)
    }

    /// One `XACK` for all of these.
    pub(crate) async fn ack_all(&self, entries: &[Entry]) -> Result<()> {
        let mut ack = cmd("XACK");
        ack.arg(&self.key).arg(GROUP);
        for Entry { id, .. } in entries {
            ack.arg(id);
        }
        let acked: usize = ack.query_async(&mut self.connection.clone()).await?;
        if acked == entries.len() {
            Ok(())
        } else {
            Err(format!("{acked} of {} were acknowledged", entries.len()).into())
        }
    }

    /// Removes it.
    pub(crate) async fn drop(self) -> Result<()> {
        Ok(cmd("DEL").arg(&self.key).query_async(&mut self.connection.clone()).await?)
    }
}
