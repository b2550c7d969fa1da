//! The listener, over real sockets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fake::*;

#[tokio::test]
async fn stopping_ends_open_streams_and_the_server() {
    let host = TestHost::new();
    let (address, server) = host.listen("127.0.0.1:0").await;

    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /v1/sessions/{SESSION}/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("caught_up") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    host.stopping.cancel();
    stream.read_to_end(&mut seen).await.unwrap();
    assert!(String::from_utf8_lossy(&seen).ends_with("0\r\n\r\n"), "the stream ends as a whole one");
    tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
