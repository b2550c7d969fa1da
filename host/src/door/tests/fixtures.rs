//! What the tests of the way out have in common: a door whose connections go where the test says, names that resolve to what the
//! test says, and servers on loopback.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use super::*;
use crate::egress::{Budget, HostName, Rule};

/// Answers of a resolver by name, one after the other; the last one stays.
#[derive(Default)]
pub(super) struct Answers {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    pub(super) asked: Mutex<Vec<String>>,
}

impl Answers {
    pub(super) fn set(&self, name: &str, answers: &[&[&str]]) {
        let parse = |addresses: &&[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.answers.lock().unwrap().insert(name.into(), answers.iter().map(parse).collect());
    }
}

#[async_trait]
impl Resolver for Answers {
    async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(name.to_string());
        let mut answers = self.answers.lock().unwrap();
        let Some(queue) = answers.get_mut(name.as_str()) else { return Ok(vec![Ipv4Addr::LOCALHOST.into()]) };
        if queue.len() > 1 { Ok(queue.pop_front().unwrap()) } else { Ok(queue[0].clone()) }
    }
}

/// A gate that writes down what it is asked, and denies where it has a reason.
#[derive(Default)]
pub(super) struct Gate {
    pub(super) reason: Option<&'static str>,
    pub(super) asked: Mutex<Vec<EgressRequest>>,
}

#[async_trait]
impl EgressGate for Gate {
    async fn ask(&self, request: &EgressRequest) -> GateVerdict {
        self.asked.lock().unwrap().push(request.clone());
        self.reason.map_or(GateVerdict::Pass, |reason| GateVerdict::Deny { reason: reason.into() })
    }
}

/// A door with a way out.
pub(super) struct Way {
    pub(super) open: Open,
    pub(super) names: Arc<Answers>,
    pub(super) gate: Arc<Gate>,
    pub(super) events: broadcast::Receiver<DoorEvent>,
    going: Arc<Mutex<HashMap<u16, SocketAddr>>>,
}

/// A rule that lets a host be on this machine.
pub(super) fn rule(host: &str, change: impl FnOnce(&mut Rule)) -> Rule {
    let mut rule = Rule::new(host.parse().unwrap(), format!("rule {host}"));
    rule.private = vec!["127.0.0.0/8".parse().unwrap()];
    change(&mut rule);
    rule
}

pub(super) fn way(rules: Vec<Rule>) -> Way {
    way_with(rules, Budget::default(), Gate::default(), DoorLimits::default())
}

pub(super) fn way_with(rules: Vec<Rule>, budget: Budget, gate: Gate, limits: DoorLimits) -> Way {
    way_of(Arc::default(), rules, budget, gate, limits)
}

/// A way for a session that has used something already.
pub(super) fn way_of(account: Arc<Account>, rules: Vec<Rule>, budget: Budget, gate: Gate, limits: DoorLimits) -> Way {
    let (names, gate, going) = (Arc::new(Answers::default()), Arc::new(gate), Arc::<Mutex<HashMap<_, _>>>::default());
    let resolver = Arc::clone(&names) as Arc<dyn Resolver>;
    let outside = Outside {
        policy: Arc::new(Policy { rules, budget }),
        lookups: Arc::new(Lookups::remembering(resolver, Duration::ZERO, Duration::ZERO)),
        gate: Arc::clone(&gate) as Arc<dyn EgressGate>,
        places: Arc::new(tokio::sync::Semaphore::new(1024)),
    };
    let known = Arc::clone(&going);
    let destination: Destination = Arc::new(move |stream| {
        let port = stream.peer_addr()?.port();
        known.lock().unwrap().get(&port).copied().ok_or_else(|| io::Error::other("not redirected"))
    });
    let open = open_to(hello(), account, outside, DoorOptions { limits, destination });
    let events = open.door.events();
    Way { open, names, gate, events, going }
}

impl Way {
    /// A connection as the sandbox makes it, to any address.
    pub(super) async fn to(&self, address: impl Into<SocketAddr>) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        self.going.lock().unwrap().insert(socket.local_addr().unwrap().port(), address.into());
        socket.connect(self.open.tcp).await.unwrap()
    }

    /// The address that DNS gives for a name in the sandbox.
    pub(super) async fn address(&self, name: &str) -> IpAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.open.dns).await.unwrap();
        socket.send(&query(name)).await.unwrap();
        let mut buffer = [0; 512];
        let length = within(socket.recv(&mut buffer)).await.unwrap();
        address_in(&buffer[..length]).expect("the name exists")
    }

    /// A connection to a name.
    pub(super) async fn to_name(&self, name: &str, port: u16) -> TcpStream {
        self.to((self.address(name).await, port)).await
    }

    /// A connection to the proxy.
    pub(super) async fn to_proxy(&self) -> TcpStream {
        self.to(SocketAddr::from((DoorHost::PROXY.address, 3128))).await
    }

    pub(super) async fn event(&mut self) -> DoorEvent {
        event(&mut self.events).await
    }
}

/// The first address of an answer of DNS.
pub(super) fn address_in(answer: &[u8]) -> Option<IpAddr> {
    use simple_dns::rdata::RData;
    match &Packet::parse(answer).unwrap().answers.first()?.rdata {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn event(events: &mut broadcast::Receiver<DoorEvent>) -> DoorEvent {
    within(events.recv()).await.unwrap()
}

pub(super) fn refused(host: &str, port: Option<u16>, protocol: Option<Protocol>, reason: &str) -> DoorEvent {
    let verdict = Verdict::Refused { reason: reason.into() };
    DoorEvent::Decided { decision: Decision { host: host.into(), port, protocol, verdict }, times: 1 }
}

pub(super) fn allowed(host: &str, port: u16, protocol: Protocol) -> DoorEvent {
    let verdict = Verdict::Allowed { rule: format!("rule {host}") };
    DoorEvent::Decided {
        decision: Decision { host: host.into(), port: Some(port), protocol: Some(protocol), verdict },
        times: 1,
    }
}

/// A server on loopback that hands over every connection, and its port.
pub(super) async fn server() -> (u16, mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if sender.send(stream).is_err() {
                break;
            }
        }
    });
    (port, receiver)
}

/// A server of HTTP on loopback, and its port.
pub(super) async fn web(router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// Sends a text and reads until the other side ends; a reset counts as an end.
pub(super) async fn say(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}
