//! One connection to one member of etcd: the requests that an overlay makes, in its own terms.

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, Identity,
    LeaseKeepAliveStream, LeaseKeeper, PutOptions, ResponseHeader, TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use netcore::model::{EtcdSource, EtcdTls};
use netcore::peers::{Entry, Event, Keys, Registration};
use tokio::time::timeout;

/// How long a member may take to answer: elections take a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a member that says nothing is asked whether it is there, and how long it may take. It
/// takes more than one in five seconds for an attack.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How many keys are read at once, at a few hundred bytes each.
const PAGE: i64 = 1000;

/// Why a request had no answer, in words.
pub(crate) type Reason = String;

/// A connection to a member.
pub(crate) struct Member {
    client: Client,
}

/// Where in its history etcd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Which cluster.
    pub(crate) cluster: u64,
    /// The number of its last change.
    pub(crate) revision: i64,
}

/// What a watch brought.
pub(crate) enum Watched {
    /// Changes, perhaps none, up to a point.
    Events(Vec<Event>, Point),
    /// What is asked for is not remembered any more.
    Compacted,
}

impl Member {
    /// Connects to `endpoint`, one of those of `source`.
    pub(crate) async fn connect(source: &EtcdSource, endpoint: &str) -> Result<Self, Reason> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(PATIENCE)
            .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(tls) = &source.tls {
            options = options.with_tls(certificates(tls)?);
        }
        if let Some(user) = &source.user {
            options = options.with_user(user, password(source)?);
        }
        let client = within(Client::connect([endpoint], Some(options))).await?;
        Ok(Self { client })
    }

    /// Connects to the first of `source` that answers.
    pub(crate) async fn any(source: &EtcdSource) -> Result<Self, Reason> {
        let mut reasons = Vec::new();
        for endpoint in &source.endpoints {
            let answer = async {
                let mut member = Self::connect(source, endpoint).await?;
                // Connecting alone does not show whether somebody is there.
                member.get(&source.prefix).await.map(|_| member)
            };
            match answer.await {
                Ok(member) => return Ok(member),
                Err(reason) => reasons.push(format!("{endpoint}: {reason}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// Everything there is from `from` to before `to`, and when that was so.
    pub(crate) async fn list(&mut self, from: &str, to: &str) -> Result<(Vec<Entry>, Point), Reason> {
        let (mut entries, mut start, mut at) = (Vec::new(), from.as_bytes().to_vec(), None);
        loop {
            let mut options = GetOptions::new().with_range(to).with_limit(PAGE);
            if let Some(Point { revision, .. }) = at {
                options = options.with_revision(revision);
            }
            let answer = within(self.client.get(start.clone(), Some(options))).await?;
            let point = match at {
                Some(point) => point,
                None => point(answer.header())?,
            };
            at = Some(point);
            entries.extend(answer.kvs().iter().map(|pair| entry(pair.key(), pair.value(), pair.create_revision())));
            match answer.kvs().last() {
                Some(last) if answer.more() => start = [last.key(), &[0]].concat(),
                _ => return Ok((entries, point)),
            }
        }
    }

    /// What `key` holds, and when that was so.
    pub(crate) async fn get(&mut self, key: &str) -> Result<(Option<String>, Point), Reason> {
        let answer = within(self.client.get(key, None)).await?;
        let value = answer.kvs().first().map(|pair| String::from_utf8_lossy(pair.value()).into_owned());
        Ok((value, point(answer.header())?))
    }

    /// Writes `registration`, if things are as it takes them to be; whether they were.
    pub(crate) async fn register(&mut self, registration: &Registration) -> Result<bool, Reason> {
        let absent = registration.absent.iter().map(|key| Compare::create_revision(key.as_str(), CompareOp::Equal, 0));
        let holds = registration.holds.iter();
        let holds = holds.map(|(key, value)| Compare::value(key.as_str(), CompareOp::Equal, value.clone()));
        let put = registration.put.iter().map(|(key, value)| TxnOp::put(key.as_str(), value.clone(), None));
        let delete = registration.delete.iter().map(|key| TxnOp::delete(key.as_str(), None));
        let transaction =
            Txn::new().when(absent.chain(holds).collect::<Vec<_>>()).and_then(put.chain(delete).collect::<Vec<_>>());
        Ok(within(self.client.txn(transaction)).await?.succeeded())
    }

    /// Removes `keys`, all at once.
    pub(crate) async fn remove(&mut self, keys: &[String]) -> Result<(), Reason> {
        let delete = keys.iter().map(|key| TxnOp::delete(key.as_str(), None));
        within(self.client.txn(Txn::new().and_then(delete.collect::<Vec<_>>()))).await.map(drop)
    }

    /// Has `key` hold `value` for as long as [`Liveness::renew`] is called every third of `seconds`.
    pub(crate) async fn announce(&mut self, key: &str, value: &str, seconds: i64) -> Result<Liveness, Reason> {
        let lease = within(self.client.lease_grant(seconds, None)).await?.id();
        within(self.client.put(key, value, Some(PutOptions::new().with_lease(lease)))).await?;
        let (keeper, answers) = within(self.client.lease_keep_alive(lease)).await?;
        Ok(Liveness { keeper, answers, key: key.to_owned() })
    }

    /// Takes back what was announced.
    pub(crate) async fn fall_silent(&mut self, liveness: &Liveness) -> Result<(), Reason> {
        within(self.client.delete(liveness.key.as_str(), None::<DeleteOptions>)).await?;
        within(self.client.lease_revoke(liveness.keeper.id())).await.map(drop)
    }

    /// Follows what happens from `from` to before `to` after `revision`.
    pub(crate) async fn watch(&mut self, (from, to): (&str, &str), revision: i64) -> Result<Watch, Reason> {
        let options = WatchOptions::new().with_range(to).with_start_revision(revision + 1).with_progress_notify();
        within(self.client.watch(from, Some(options))).await.map(Watch)
    }
}

/// That this node's agent is at work, as etcd has it.
pub(crate) struct Liveness {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    key: String,
}

impl Liveness {
    /// Says so again; whether etcd still knew.
    pub(crate) async fn renew(&mut self) -> Result<bool, Reason> {
        within(self.keeper.keep_alive()).await?;
        let answer = within(self.answers.message()).await?;
        Ok(answer.is_some_and(|answer| answer.ttl() > 0))
    }
}

/// What happens, as it happens.
pub(crate) struct Watch(WatchStream);

impl Watch {
    /// The next of it. Nothing is lost when this is not waited for to its end.
    pub(crate) async fn next(&mut self) -> Result<Watched, Reason> {
        let Some(answer) = self.0.message().await.map_err(explain)? else {
            return Err("the member ended the watch".to_owned());
        };
        if answer.compact_revision() > 0 {
            return Ok(Watched::Compacted);
        }
        if answer.canceled() {
            return Err(format!("the member ended the watch: {}", answer.cancel_reason()));
        }
        let point = point(answer.header())?;
        let event = |event: &etcd_client::Event| {
            let pair = event.kv()?;
            Some(match event.event_type() {
                EventType::Put => Event::Put(entry(pair.key(), pair.value(), pair.create_revision())),
                EventType::Delete => Event::Deleted(String::from_utf8_lossy(pair.key()).into_owned()),
            })
        };
        Ok(Watched::Events(answer.events().iter().filter_map(event).collect(), point))
    }
}

/// Everything of the overlay whose keys are `keys`.
pub(crate) async fn list_all(member: &mut Member, keys: &Keys) -> Result<(Vec<Entry>, Point), Reason> {
    let (from, to) = keys.followed();
    member.list(&from, &to).await
}

fn entry(key: &[u8], value: &[u8], created: i64) -> Entry {
    let key = String::from_utf8_lossy(key).into_owned();
    Entry { key, value: value.to_vec(), created: created.try_into().unwrap_or_default() }
}

fn point(header: Option<&ResponseHeader>) -> Result<Point, Reason> {
    let header = header.ok_or("an answer without a header: this is not etcd")?;
    Ok(Point { cluster: header.cluster_id(), revision: header.revision() })
}

fn certificates(tls: &EtcdTls) -> Result<TlsOptions, Reason> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("read {}: {error}", path.display()));
    let mut options = TlsOptions::new();
    if let Some(ca) = &tls.ca {
        options = options.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let (Some(certificate), Some(key)) = (&tls.cert, &tls.key) {
        options = options.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(options)
}

fn password(source: &EtcdSource) -> Result<String, Reason> {
    match (&source.password, &source.password_file) {
        (Some(password), _) => Ok(password.0.clone()),
        (None, Some(path)) => fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| format!("read {}: {error}", path.display())),
        (None, None) => Ok(String::new()),
    }
}

/// What `request` is answered, if it is within [`PATIENCE`].
async fn within<T>(request: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, Reason> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(explain),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// `error` with what it comes from, without what only programmers want to know.
fn explain(error: etcd_client::Error) -> Reason {
    let etcd_client::Error::GRpcStatus(status) = &error else { return error.to_string() };
    let mut words = vec![status.message().to_owned()];
    let mut cause = status.source();
    while let Some(error) = cause {
        words.push(error.to_string());
        cause = error.source();
    }
    words.retain(|word| !word.is_empty() && word != "transport error");
    words.dedup();
    words.join(": ")
}
