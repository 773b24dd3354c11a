use std::time::{Duration, Instant};

use bson::{Document, doc};

use crate::mongod::{Mongod, TIMEOUT};

const SET: &str = "rs";
const OF_A_SET: [&str; 4] = ["--replSet", SET, "--oplogSize", "64"];

/// A MongoDB replica set of one test, whose members may be killed, frozen and held back. It ends with the
/// test.
///
/// Elections take two seconds. Each member knows the server's fail points.
#[derive(Debug)]
pub struct ReplicaSet {
    members: Vec<Mongod>,
    options: Vec<Document>,
    /// Of a set that others have started.
    uri: Option<String>,
}

impl ReplicaSet {
    /// Three members that carry data.
    ///
    /// # Panics
    /// If there is no `mongod`, or no primary is elected.
    pub async fn start() -> Self {
        Self::with_members(vec![Document::new(); 3]).await
    }

    /// Two members that carry data, and an arbiter: one of them away leaves a primary, but no majority that
    /// could acknowledge a write.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn with_arbiter() -> Self {
        Self::with_members(vec![doc! { "priority": 2 }, Document::new(), doc! { "arbiterOnly": true }]).await
    }

    /// The set of three members that `scripts/services` started. Its members can be held back and elected,
    /// and not be killed or frozen; a test that does so is the only one that uses it meanwhile.
    ///
    /// # Panics
    /// If the services are not up.
    #[must_use]
    pub fn of_services() -> Self {
        let uri = crate::servers::mongo_rs3_uri();
        let hosts = uri.trim_start_matches("mongodb://").split('/').next().unwrap_or_default();
        let ports = hosts.split(',').map(|host| {
            host.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a host has a port")
        });
        let members: Vec<Mongod> = ports.map(Mongod::of_others).collect();
        Self { options: vec![Document::new(); members.len()], members, uri: Some(uri) }
    }

    /// A member for each document of options in the set's configuration.
    async fn with_members(options: Vec<Document>) -> Self {
        let members = options.iter().map(|_| Mongod::new()).collect();
        let mut set = Self { members, options, uri: None };
        for member in &mut set.members {
            member.spawn(&OF_A_SET);
        }
        for member in &set.members {
            member.until_answering().await;
        }
        let members = set.options.iter().zip(&set.members).enumerate().map(|(at, (options, member))| {
            let mut described =
                doc! { "_id": i32::try_from(at).expect("a set has few members"), "host": member.address() };
            described.extend(options.clone());
            described
        });
        let members: Vec<Document> = members.collect();
        let settings = doc! { "electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 200 };
        // What a set with an arbiter has by itself is not a majority.
        set.run(
            0,
            "admin",
            doc! { "replSetInitiate": { "_id": SET, "members": members, "settings": settings } },
        )
        .await;
        set.until_complete().await;
        set
    }

    /// The connection string that names every member.
    #[must_use]
    pub fn uri(&self) -> String {
        if let Some(uri) = &self.uri {
            return uri.clone();
        }
        let hosts: Vec<_> = self.members.iter().map(Mongod::address).collect();
        format!("mongodb://{}/?replicaSet={SET}", hosts.join(","))
    }

    /// The index of the primary; waits for an election.
    ///
    /// # Panics
    /// If no member becomes the primary.
    pub async fn primary(&self) -> usize {
        let begun = Instant::now();
        loop {
            for (at, member) in self.members.iter().enumerate() {
                if member.is_up()
                    && let Some(hello) = member.ask("admin", doc! { "hello": 1 }).await
                    && hello.get_bool("isWritablePrimary").unwrap_or(false)
                {
                    return at;
                }
            }
            assert!(begun.elapsed() < TIMEOUT, "no member of the replica set became its primary");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_arbiter(&self, at: usize) -> bool {
        self.options[at].get_bool("arbiterOnly").unwrap_or(false)
    }

    /// The members that carry data and are not at `primary`.
    #[must_use]
    pub fn others(&self, primary: usize) -> Vec<usize> {
        (0..self.members.len()).filter(|at| *at != primary && !self.is_arbiter(*at)).collect()
    }

    /// Waits until there is a primary and every member that runs follows it, so that a majority can
    /// acknowledge writes.
    ///
    /// # Panics
    /// If that never comes.
    pub async fn until_complete(&self) {
        let begun = Instant::now();
        loop {
            let primary = self.primary().await;
            let status =
                self.members[primary].ask("admin", doc! { "replSetGetStatus": 1 }).await.unwrap_or_default();
            let states = status.get_array("members").map(|members| {
                let states =
                    members.iter().filter_map(|member| member.as_document()?.get_str("stateStr").ok());
                states.filter(|state| ["PRIMARY", "SECONDARY", "ARBITER"].contains(state)).count()
            });
            let running = self.members.iter().filter(|member| member.is_up()).count();
            if states.is_ok_and(|states| states >= running) {
                return;
            }
            assert!(
                begun.elapsed() < TIMEOUT,
                "the members of the replica set do not follow its primary: {status}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The answer of the member at `at` to a command.
    ///
    /// # Panics
    /// If it does not answer, or with an error.
    pub async fn run(&self, at: usize, database: &str, command: Document) -> Document {
        self.members[at].run(database, command).await
    }

    /// The documents of a collection as the member at `at` has them, committed or not.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub async fn documents(&self, at: usize, database: &str, collection: &str) -> Vec<Document> {
        self.members[at].documents(database, collection).await
    }

    /// Makes the primary give up its office, and waits for the next one.
    pub async fn step_down(&self) -> usize {
        let primary = self.primary().await;
        // It may be refused if no other member has caught up in a second; `force` then does it all the same.
        self.members[primary]
            .ask("admin", doc! { "replSetStepDown": 3, "secondaryCatchUpPeriodSecs": 1, "force": true })
            .await;
        self.primary().await
    }

    /// Holds back replication: what the primary writes from now on reaches no other member.
    pub async fn lag(&self, primary: usize) {
        for at in self.others(primary) {
            self.run(at, "admin", doc! { "configureFailPoint": "stopReplProducer", "mode": "alwaysOn" })
                .await;
        }
        // A batch that was on its way when the fail points were set still arrives; the next one does not.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    /// Ends [`lag`](Self::lag).
    pub async fn catch_up(&self) {
        for (at, member) in self.members.iter().enumerate() {
            if member.is_up() && !self.is_arbiter(at) {
                self.run(at, "admin", doc! { "configureFailPoint": "stopReplProducer", "mode": "off" }).await;
            }
        }
    }

    /// Stops the member's process without ending it: its connections stay open, and nothing on them is
    /// answered.
    pub fn freeze(&mut self, at: usize) {
        self.members[at].signal("STOP");
        self.members[at].is_frozen = true;
    }

    /// Ends [`freeze`](Self::freeze).
    pub fn thaw(&mut self, at: usize) {
        self.members[at].signal("CONT");
        self.members[at].is_frozen = false;
    }

    /// Ends the member's process at once, as `kill -9` does.
    pub fn kill(&mut self, at: usize) {
        self.members[at].kill();
    }

    /// Starts a killed member again, on its port and data.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn restart(&mut self, at: usize) {
        self.members[at].spawn(&OF_A_SET);
        self.members[at].until_answering().await;
    }

    /// Elects another primary while the present one is frozen and the others lack what it wrote since
    /// [`lag`](Self::lag); the old one is thawed by the caller, and then undoes what only it had. Returns the
    /// new one.
    pub async fn fail_over_without_the_last_writes(&mut self, primary: usize) -> usize {
        self.freeze(primary);
        let next = self.primary().await;
        self.catch_up().await;
        next
    }

    /// Elects a member that lacks what the primary wrote since [`lag`](Self::lag), and ends that: the old
    /// primary then undoes what only it had. All members stay up. Returns the new primary.
    ///
    /// # Panics
    /// If no other member becomes the primary.
    pub async fn elect_without_the_last_writes(&self, primary: usize) -> usize {
        let begun = Instant::now();
        let next = self.others(primary)[0];
        loop {
            assert!(begun.elapsed() < TIMEOUT, "no other member became the primary");
            self.members[next].ask("admin", doc! { "replSetStepUp": 1 }).await;
            // It would take over what the old one has more before it takes writes.
            self.members[next].ask("admin", doc! { "replSetAbortPrimaryCatchUp": 1 }).await;
            let hello = self.members[next].ask("admin", doc! { "hello": 1 }).await.unwrap_or_default();
            if hello.get_bool("isWritablePrimary").unwrap_or(false) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.catch_up().await;
        next
    }
}
