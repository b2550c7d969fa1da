//! `ostler-bench [SUITE] [--json FILE]`: measures against peers in the same run and prints a table.
//!
//! One record per measure: `{"suite","name","unit","n","p50","p95","p99","peer","peer_p50","ratio"}`, where ratio is
//! p50 / peer_p50. Runs of a measure and of its peers are interleaved, so that a busy machine is busy for all of them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod e2e;
mod egress;
mod live;
mod memory;
mod record;
mod sandbox;

use anyhow::{Context, Result, bail};

use crate::record::{Record, table};

const SUITES: [&str; 3] = ["sandbox", "egress", "e2e"];

fn main() -> Result<()> {
    let mut suite = None;
    let mut json = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = Some(arguments.next().context("--json needs a file")?),
            name if SUITES.contains(&name) => suite = Some(name.to_owned()),
            other => bail!("unknown suite `{other}`; there are: {}", SUITES.join(", ")),
        }
    }
    let wanted = |name: &str| suite.as_deref().is_none_or(|suite| suite == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut records: Vec<Record> = Vec::new();
    if wanted("sandbox") {
        eprintln!("sandbox: exec, create and start, against fork and runc");
        records.extend(runtime.block_on(sandbox::run())?);
        eprintln!("sandbox: idle, warm, beside a neighbour and among two hundred");
        records.extend(runtime.block_on(memory::run())?);
        records.extend(runtime.block_on(live::run())?);
    }
    if wanted("egress") {
        eprintln!("egress: connections and bytes through the door, against direct ones");
        records.extend(runtime.block_on(egress::run())?);
    }
    if wanted("e2e") {
        eprintln!("e2e: from a prompt to the first model request");
        records.extend(runtime.block_on(e2e::run())?);
    }
    print!("{}", table(&records));
    if let Some(path) = json {
        let lines: Vec<String> = records.iter().map(Record::json).collect();
        std::fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("write {path}"))?;
    }
    Ok(())
}
