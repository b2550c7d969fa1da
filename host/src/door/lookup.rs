//! Look-ups of names: remembered for a short time, joined where they are equal, and never all taken by one sandbox.
//!
//! ```text
//!  name ─► known? ─► under way? wait with the others ─► a place of this door ─► a place of the host ─► the resolver
//! ```
//!
//! A look-up cannot be called off: the C library has no way to. It keeps its places until it ends, whoever has stopped waiting, and that is
//! why a door has few of its own: slow names of one sandbox leave the other sandboxes theirs.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};

use crate::egress::HostName;

/// Time that an answer is used again, as the resolver does not say how long it holds, and that a failure is not tried again.
const KEEP: Duration = Duration::from_secs(20);
const KEEP_FAILURE: Duration = Duration::from_secs(5);

/// Answers that are kept.
const KEPT: usize = 512;

/// Look-ups at the same time, of one door and of the host.
const OF_DOOR: usize = 4;
const OF_HOST: usize = 64;

/// Names that the machine knows by itself, and most of them that are looked at.
const HOSTS_FILE: &str = "/etc/hosts";
const HOSTS_FILE_MOST: u64 = 1 << 20;

/// Finds the addresses of names.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Addresses of a name, the preferred ones first.
    async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the host's machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        let name = name.clone();
        let look_up = move || (written(name.as_str(), &hosts_file()).as_str(), 0).to_socket_addrs().map(Vec::from_iter);
        let found = tokio::task::spawn_blocking(look_up).await.map_err(io::Error::other)??;
        Ok(found.into_iter().map(|address| address.ip()).collect())
    }
}

/// How the C library is asked for a name. With a final dot it means that name and no other: without, a name that does not exist
/// is tried again below the machine's search domains, so that `build.example` may become `build.example.corp.example`, which
/// nobody allowed. Names of the machine's own file are found without a dot only, and come before anything else.
fn written(name: &str, hosts: &str) -> String {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let known = lines.flat_map(|line| line.split_whitespace().skip(1)).any(|known| known.eq_ignore_ascii_case(name));
    if known { name.to_owned() } else { format!("{name}.") }
}

fn hosts_file() -> String {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(HOSTS_FILE)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, HOSTS_FILE_MOST), &mut bytes));
    if let Err(error) = read {
        tracing::debug!(%error, "the machine's file of hosts cannot be read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a look-up came to; a failure in words, because many wait for one.
type Found = Result<Vec<IpAddr>, (io::ErrorKind, String)>;

/// The look-ups of all doors.
pub struct Lookups {
    resolver: Arc<dyn Resolver>,
    keep: Duration,
    keep_failure: Duration,
    entries: Mutex<HashMap<HostName, Entry>>,
    places: Arc<Semaphore>,
}

enum Entry {
    /// The answer comes here. Closed without one where the look-up broke.
    UnderWay(watch::Receiver<Option<Found>>),
    Known(Instant, Found),
}

/// The look-ups that one door may have under way.
pub(super) struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(OF_DOOR)))
    }
}

impl Lookups {
    /// Look-ups by a resolver.
    #[must_use]
    pub fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self::remembering(resolver, KEEP, KEEP_FAILURE)
    }

    pub(super) fn remembering(resolver: Arc<dyn Resolver>, keep: Duration, keep_failure: Duration) -> Self {
        let places = Arc::new(Semaphore::new(OF_HOST));
        Self { resolver, keep, keep_failure, entries: Mutex::default(), places }
    }

    /// Finds the addresses of a name, in the places of `share`. Whoever asks gives up when it takes too long.
    pub(super) async fn find(self: &Arc<Self>, name: &HostName, share: &Share) -> io::Result<Vec<IpAddr>> {
        // Not held while places are waited for.
        let known = self.known(&self.entries(), name);
        let mut under_way = match known {
            Some(Entry::Known(_, found)) => return answer(found),
            Some(Entry::UnderWay(receiver)) => receiver,
            None => {
                let of_door = Arc::clone(&share.0).acquire_owned().await.map_err(io::Error::other)?;
                let of_host = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
                self.begin(name, (of_door, of_host))
            }
        };
        let found = under_way.wait_for(Option::is_some).await.map_err(|_| io::Error::other("the look-up broke off"))?;
        let found = found.clone();
        answer(found.unwrap_or_else(|| Ok(Vec::new())))
    }

    /// What is known of a name, and still holds.
    fn known(&self, entries: &HashMap<HostName, Entry>, name: &HostName) -> Option<Entry> {
        match entries.get(name)? {
            Entry::UnderWay(receiver) if receiver.has_changed().is_ok() => Some(Entry::UnderWay(receiver.clone())),
            Entry::Known(at, found) if self.holds(*at, found) => Some(Entry::Known(*at, found.clone())),
            _ => None,
        }
    }

    fn holds(&self, at: Instant, found: &Found) -> bool {
        at.elapsed() < if found.is_ok() { self.keep } else { self.keep_failure }
    }

    /// Begins a look-up, which keeps `places` until it ends; or joins one that began while they were waited for.
    fn begin(self: &Arc<Self>, name: &HostName, places: impl Send + 'static) -> watch::Receiver<Option<Found>> {
        let (sender, receiver) = watch::channel(None);
        let mut entries = self.entries();
        match self.known(&entries, name) {
            Some(Entry::UnderWay(receiver)) => return receiver,
            Some(Entry::Known(_, found)) => {
                sender.send_replace(Some(found));
                return receiver;
            }
            None => {}
        }
        entries.insert(name.clone(), Entry::UnderWay(receiver.clone()));
        drop(entries);
        let (lookups, name) = (Arc::clone(self), name.clone());
        tokio::spawn(async move {
            let _places = places;
            let found = lookups.resolver.resolve(&name).await;
            let found = found.map_err(|error| (error.kind(), error.to_string()));
            lookups.remember(name, found.clone());
            sender.send_replace(Some(found));
        });
        receiver
    }

    fn remember(&self, name: HostName, found: Found) {
        let mut entries = self.entries();
        if entries.len() >= KEPT {
            entries.retain(|_, entry| match entry {
                Entry::UnderWay(receiver) => receiver.has_changed().is_ok(),
                Entry::Known(at, found) => self.holds(*at, found),
            });
        }
        if entries.len() < KEPT {
            entries.insert(name, Entry::Known(Instant::now(), found));
        } else {
            entries.remove(&name);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<HostName, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(found: Found) -> io::Result<Vec<IpAddr>> {
    found.map_err(|(kind, text)| io::Error::new(kind, text))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Says that it is asked, and then answers: `slow` names when it is told to, others at once, `bad` ones with a failure.
    struct Fake {
        asked: mpsc::UnboundedSender<String>,
        go: Semaphore,
    }

    #[async_trait]
    impl Resolver for Fake {
        async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
            let _ = self.asked.send(name.to_string());
            if name.as_str().starts_with("slow") {
                self.go.acquire().await.map_err(io::Error::other)?.forget();
            }
            if name.as_str().starts_with("bad") {
                return Err(io::Error::new(io::ErrorKind::NotFound, "no such name"));
            }
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        }
    }

    fn fake(keep: Duration) -> (Arc<Lookups>, Arc<Fake>, mpsc::UnboundedReceiver<String>) {
        let (asked, receiver) = mpsc::unbounded_channel();
        let resolver = Arc::new(Fake { asked, go: Semaphore::new(0) });
        let lookups = Lookups::remembering(Arc::clone(&resolver) as Arc<dyn Resolver>, keep, keep);
        (Arc::new(lookups), resolver, receiver)
    }

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    async fn within<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, work).await.expect("it hangs")
    }

    #[tokio::test]
    async fn slow_names_of_one_sandbox_do_not_hold_up_another() {
        let (lookups, resolver, mut asked) = fake(PATIENCE);
        let (greedy, other) = (Arc::new(Share::default()), Share::default());
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..3 * OF_HOST {
            let (lookups, share) = (Arc::clone(&lookups), Arc::clone(&greedy));
            waiting.spawn(async move { lookups.find(&name(&format!("slow{number}.example")), &share).await });
        }
        for _ in 0..OF_DOOR {
            within(asked.recv()).await.unwrap();
        }
        within(lookups.find(&name("a.example"), &other)).await.unwrap();
        assert_eq!(asked.recv().await.as_deref(), Some("a.example"), "no more of the slow ones were begun");
        // Whoever gives up does not free a place: the look-up goes on.
        waiting.shutdown().await;
        assert_eq!(greedy.0.available_permits(), 0);
        resolver.go.add_permits(OF_DOOR);
        within(lookups.find(&name("b.example"), &greedy)).await.unwrap();
    }

    #[tokio::test]
    async fn equal_look_ups_are_one_and_need_one_place() {
        let (lookups, resolver, mut asked) = fake(PATIENCE);
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let lookups = Arc::clone(&lookups);
            waiting.spawn(async move { lookups.find(&name("slow.example"), &Share::default()).await });
        }
        within(asked.recv()).await.unwrap();
        resolver.go.add_permits(1);
        for found in within(waiting.join_all()).await {
            assert_eq!(found.unwrap(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        }
        assert!(asked.try_recv().is_err(), "it was asked once");
    }

    #[tokio::test]
    async fn answers_and_failures_are_remembered_and_only_for_a_time() {
        for (keep, times) in [(PATIENCE, 1), (Duration::ZERO, 2)] {
            let (lookups, _, mut asked) = fake(keep);
            let share = Share::default();
            for text in ["a.example", "bad.example"] {
                for _ in 0..2 {
                    let found = within(lookups.find(&name(text), &share)).await;
                    let said = found.map_err(|error| (error.kind(), error.to_string()));
                    let failure = Err((io::ErrorKind::NotFound, "no such name".to_owned()));
                    assert_eq!(
                        said,
                        if text.starts_with("bad") { failure } else { Ok(vec![Ipv4Addr::LOCALHOST.into()]) }
                    );
                }
                let mut count = 0;
                while asked.try_recv().is_ok() {
                    count += 1;
                }
                assert_eq!(count, times, "{text}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let (lookups, _, _asked) = fake(PATIENCE);
        let share = Share::default();
        for number in 0..KEPT + 10 {
            lookups.find(&name(&format!("n{number}.example")), &share).await.unwrap();
        }
        assert!(lookups.entries().len() <= KEPT);
    }

    #[test]
    fn a_name_is_asked_for_as_it_is_and_not_below_the_machines_domains() {
        let hosts = "127.0.0.1 localhost\n10.0.0.5\tMirror.example mirror # old.example\n";
        assert_eq!(written("www.example.org", hosts), "www.example.org.");
        assert_eq!(written("old.example", hosts), "old.example.");
        assert_eq!(written("mirror.example", hosts), "mirror.example");
        assert_eq!(written("localhost", hosts), "localhost");
    }

    #[tokio::test]
    async fn the_machines_own_names_are_found() {
        let found = SystemResolver.resolve(&name("localhost")).await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
    }
}
