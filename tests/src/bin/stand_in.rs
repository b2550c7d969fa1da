//! A server of models that plays a script over Anthropic's Messages and over chat completions, for trying things without a
//! vendor: `cargo run --bin ostler-stand-in -- examples/demo-script.toml 127.0.0.1:8099`. Its model is `stand-in`.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use ostler_tests::ModelServer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (script, address) = (arguments.next(), arguments.next());
    let script = script.context("usage: ostler-stand-in SCRIPT [ADDRESS]")?;
    let text = std::fs::read_to_string(&script).with_context(|| format!("read {script}"))?;
    let address: SocketAddr =
        address.as_deref().unwrap_or("127.0.0.1:0").parse().context("an address such as 127.0.0.1:8099")?;
    let server = ModelServer::listen(&text, address).await?;
    let mut out = std::io::stdout();
    std::io::Write::write_all(
        &mut out,
        format!("OPENAI_BASE_URL={}\nANTHROPIC_BASE_URL={}\n", server.openai_url(), server.anthropic_url()).as_bytes(),
    )?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
