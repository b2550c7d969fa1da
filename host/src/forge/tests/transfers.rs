//! Requests that no git client makes: garbage, compression, clients that go away.

use std::io::Write;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const RECEIVE: &str = "/demo.git/git-receive-pack";
const UPLOAD: &str = "/demo.git/git-upload-pack";

/// Sends a request and returns status and body.
async fn post(served: &Served, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let kind = format!("application/x-git-{}-request", path.rsplit("git-").next().unwrap());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no answer");
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    let start = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    (status, answer[start..].to_vec())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn garbage_is_a_client_error_and_never_reaches_git() {
    let world = World::new().await;
    let oid = "1".repeat(40);
    let long = format!("{:04x}{oid} {oid} refs/heads/{}", 4 + 82 + 11 + 60_000, "a".repeat(60_000));
    let long = [long.as_bytes(), long.as_bytes()].concat();
    let cases: [(&[u8], u16); 8] = [
        (b"", 400),
        (b"hello", 400),
        (b"fff5x", 400),
        (b"0003", 400),
        (b"0001", 400),
        (b"0008abcd0000", 400),
        (b"00ff", 400),
        (&long, 400),
    ];
    for access in [session(), Access::Full] {
        let served = world.serve(access).await;
        for (body, expected) in cases {
            let (status, said) = post(&served, RECEIVE, "", body).await;
            assert_eq!(status, expected, "{:?} {}", &body[..body.len().min(20)], String::from_utf8_lossy(&said));
        }
        assert_eq!(post(&served, RECEIVE, "", b"0000").await.0, 200);
        let (status, said) = post(&served, UPLOAD, "", b"0009hello").await;
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(&said));
    }
    let served = world.serve(session()).await;
    let line = format!("{:04x}{oid} {oid} refs/heads/a", 4 + 82 + 12);
    assert_eq!(post(&served, RECEIVE, "", line.repeat(2000).as_bytes()).await.0, 413);
    world.assert_no_git().await;
}

#[tokio::test]
async fn a_wrong_type_method_service_or_path_is_refused() {
    let world = World::new().await;
    let served = world.serve(Access::Full).await;
    let status = async |request: &str| {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream
            .write_all(
                format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].parse::<u16>().unwrap()
    };
    assert_eq!(status("POST /demo.git/git-upload-pack").await, 415);
    assert_eq!(status("POST /demo.git/git-receive-pack").await, 415);
    assert_eq!(status("GET /demo.git/git-upload-pack").await, 405);
    assert_eq!(status("GET /demo.git/info/refs").await, 403);
    assert_eq!(status("GET /demo.git/info/refs?service=git-upload-archive").await, 403);
    assert_eq!(status("GET /demo.git/HEAD").await, 404);
    assert_eq!(status("GET /demo.git/objects/info/packs").await, 404);
    assert_eq!(status("GET /demo.git/info/refs?service=git-upload-pack").await, 200);
}

#[tokio::test]
async fn a_compressed_request_is_understood_and_a_bomb_is_not() {
    let limits = ForgeLimits { fetch_request: 1 << 20, ..ForgeLimits::default() };
    let world = World::with(limits).await;
    let served = world.serve(session()).await;
    let headers = "Content-Encoding: gzip\r\nGit-Protocol: version=2\r\n";
    let ask = gzip(b"0014command=ls-refs\n00010000");
    let (status, said) = post(&served, UPLOAD, headers, &ask).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(status, 200, "{said}");
    assert!(said.contains(&format!("{} refs/heads/main", world.head().await)), "{said}");
    let (status, _) = post(&served, UPLOAD, headers, b"this is not gzip").await;
    assert_eq!(status, 400);
    // Valid lines, so that git goes on reading until our limit ends it.
    let mut bomb = b"0011command=fetch0001".to_vec();
    bomb.extend(b"0032have 1111111111111111111111111111111111111111\n".repeat(100_000));
    let (status, _) = post(&served, UPLOAD, headers, &gzip(&bomb)).await;
    assert_eq!(status, 413);
    let (status, _) = post(&served, UPLOAD, "Content-Encoding: br\r\n", b"x").await;
    assert_eq!(status, 415);
    world.assert_no_git().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_git() {
    let world = World::new().await;
    let served = world.serve(session()).await;
    // A fetch whose client stops reading, then goes.
    let stream = fetch_and_stop_reading(&world, &served).await;
    let head = world.head().await;
    assert!(world.forge.places().sessions.available_permits() < world.forge.limits().processes);
    drop(stream);
    world.assert_no_git().await;
    // A push that breaks off in the middle of its pack.
    let before = world.references().await;
    let update = format!("{} {head} refs/heads/ostler/x\0 report-status", "0".repeat(40));
    let mut body = format!("{:04x}{update}0000PACK", update.len() + 4).into_bytes();
    body.extend([0, 0, 0, 2, 0, 0, 0, 9, 0x95]);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = format!(
        "POST {RECEIVE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-receive-pack-request\r\nContent-Length: 100000\r\n\r\n"
    );
    stream.write_all(&[request.as_bytes(), &body].concat()).await.unwrap();
    // Wait until git is at work.
    while world.forge.places().sessions.available_permits() == world.forge.limits().processes {
        tokio::task::yield_now().await;
    }
    drop(stream);
    world.assert_no_git().await;
    assert_eq!(world.references().await, before);
    let objects = world.forge.path(&name("demo")).join("objects");
    let left: Vec<_> =
        std::fs::read_dir(objects).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("tmp_") || name.starts_with("incoming")), "{left:?}");
}

#[tokio::test]
async fn a_client_that_stops_sending_is_given_up_on() {
    let limits = ForgeLimits { idle: Duration::from_millis(50), ..ForgeLimits::default() };
    let world = World::with(limits).await;
    let served = world.serve(session()).await;
    for (path, body) in [(RECEIVE, ""), (RECEIVE, "00"), (UPLOAD, "0011command=fetch0001")] {
        let kind = format!("application/x-git-{}-request", path.rsplit("git-").next().unwrap());
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nGit-Protocol: version=2\r\nContent-Length: 1000\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server waits for ever");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 200"),
            "{answer}"
        );
    }
    world.assert_no_git().await;
}

/// Asks for a history that no socket's buffers hold, and reads the beginning of it only.
async fn fetch_and_stop_reading(world: &World, served: &Served) -> TcpStream {
    let noise: Vec<u8> =
        (0u64..2_000_000).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
    world.commit("large", &noise, "large").await;
    git(&world.work, &["push", "-q", world.forge.path(&name("demo")).to_str().unwrap(), "main"]).await;
    let want = format!("0011command=fetch0001000fno-progress0032want {}\n0009done\n0000", world.head().await);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-upload-pack-request\r\nGit-Protocol: version=2\r\nContent-Length: {}\r\n\r\n{want}",
        want.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 4096];
    stream.read_exact(&mut first).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&first));
    stream
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up_on() {
    let limits = ForgeLimits { idle: Duration::from_millis(50), ..ForgeLimits::default() };
    let world = World::with(limits).await;
    let served = world.serve(session()).await;
    let mut held = fetch_and_stop_reading(&world, &served).await;
    world.assert_no_git().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, held.read_to_end(&mut rest)).await.expect("the connection stays");
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"), "half of an answer must not look whole");
}

#[tokio::test]
async fn sessions_that_keep_git_waiting_do_not_keep_another_one_from_it() {
    let world = World::with(ForgeLimits { processes: 8, ..ForgeLimits::default() }).await;
    let update = format!("{} {} refs/heads/ostler/x\0 report-status", "0".repeat(40), world.head().await);
    let mut body = format!("{:04x}{update}0000PACK", update.len() + 4).into_bytes();
    body.extend([0, 0, 0, 2, 0, 0, 0, 9, 0x95]);
    let head = format!(
        "POST {RECEIVE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-receive-pack-request\r\nContent-Length: 100000\r\n\r\n"
    );
    let mut held = Vec::new();
    for _ in 0..3 {
        let served = world.serve(session()).await;
        for _ in 0..8 {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            held.push(stream);
        }
    }
    // All that they can have: one each, and half of all.
    while world.forge.places().sessions.available_permits() > 1 {
        tokio::task::yield_now().await;
    }
    let served = world.serve(session()).await;
    git(&world.work, &["fetch", "-q", &served.url("demo"), "main"]).await;
    git(&world.work, &["push", "-q", &served.url("demo"), "main:ostler/x"]).await;
    drop(held);
    world.assert_no_git().await;
}

#[tokio::test]
async fn a_busy_forge_says_so() {
    let limits = ForgeLimits { query: Duration::from_millis(100), processes: 1, ..ForgeLimits::default() };
    let world = World::with(ForgeLimits { query: Duration::from_secs(30), ..limits }).await;
    let forge = Forge::open_with(&world.folder.path().join("forge"), GitRunner::children(), limits).unwrap();
    let world = World { forge, ..world };
    let served = world.serve(session()).await;
    let permit = world.forge.places().sessions.clone().acquire_owned().await.unwrap();
    let (status, said) = post(&served, UPLOAD, "", b"0000").await;
    assert_eq!((status, String::from_utf8(said).unwrap().contains("busy")), (503, true));
    drop(permit);
    world.assert_no_git().await;
}
