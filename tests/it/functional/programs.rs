//! Ordinary programs in a sandbox: what people run there, and what has broken in other sandboxes.
//!
//! Each runs as it would anywhere, without a network, in a sandbox of its own made from the image of `images/programs`.

use anyhow::{Context, Result, ensure};
use ostler_sandbox::client::{Deadlines, Guest};
use ostler_sandbox::wire::launcher::Limits;
use ostler_tests::runtime::{DEADLINE, LIMITS, Runtime, command, new_id};
use tokio::io::AsyncReadExt;

/// A browser wants more than the usual.
const ROOMY: Limits = Limits { memory: 4 << 30, pids: 1024, ..LIMITS };

/// Runs a script in a new sandbox and returns what it wrote; it must succeed.
async fn run(script: &str) -> Result<String> {
    let runtime = Runtime::with_programs()?;
    let (launcher, _) = runtime.connect(1).await?;
    let started = launcher.create(&new_id(), &runtime.image, ROOMY, DEADLINE).await?;
    let guest = Guest::connect(started.control, 1, Deadlines::default()).await?;
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut exec = command("script", &["/bin/bash", "-ec", script]);
    exec.env.extend([
        variable("HOME", "/root"),
        variable("LANG", "C.UTF-8"),
        variable("DEBIAN_FRONTEND", "noninteractive"),
    ]);
    exec.cwd = "/workspace".into();
    exec.timeout_ms = 180_000;
    let mut running = guest.exec(exec).await?;
    let mut output = Vec::new();
    running.output.read_to_end(&mut output).await?;
    let call = running.exit().await?;
    let output = String::from_utf8_lossy(&output).into_owned();
    ensure!(call.exit.is_some_and(|exit| exit.status == 0), "{call:?}\n{output}");
    runtime.shut_down(launcher).await?;
    Ok(output)
}

/// The last line of an output.
fn last(output: &str) -> Result<&str> {
    output.lines().last().with_context(|| format!("nothing was written: {output:?}"))
}

#[tokio::test]
async fn a_browser_runs_a_page_with_its_own_sandbox_off() -> Result<()> {
    let output = run("
cat > page.html <<'END'
<body><p id=p>before</p><script>
  const worker = new Worker(URL.createObjectURL(new Blob(['postMessage(6 * 7)'])));
  worker.onmessage = (event) => { document.getElementById('p').textContent = 'answer ' + event.data; };
</script></body>
END
chromium --headless=new --no-sandbox --disable-gpu --virtual-time-budget=10000 --dump-dom file:///workspace/page.html 2>log || { cat log; exit 1; }
chromium --headless=new --no-sandbox --disable-gpu --screenshot=/workspace/page.png file:///workspace/page.html 2>>log
head -c 4 page.png | tail -c 3
")
    .await?;
    assert!(output.contains("answer 42") && last(&output)?.ends_with("PNG"), "{output}");
    Ok(())
}

#[tokio::test]
async fn git_keeps_a_repository() -> Result<()> {
    let output = run("
export GIT_AUTHOR_NAME=Ada GIT_AUTHOR_EMAIL=ada@example.org GIT_COMMITTER_NAME=Ada GIT_COMMITTER_EMAIL=ada@example.org
git init -q -b main one && cd one
for i in $(seq 20); do echo $i > file-$i; git add -A; git commit -qm $i; done
git gc -q && git fsck --strict --no-progress && git worktree add -q ../two -b other
cd ../two && git mv file-1 renamed && git commit -qm moved && git rebase -q main
git clone -q --no-local ../one ../three && cd ../three && git log --oneline origin/other | wc -l
")
    .await?;
    assert_eq!(last(&output)?, "21", "{output}");
    Ok(())
}

#[tokio::test]
async fn cargo_builds_and_tests_a_crate() -> Result<()> {
    let output = run("
cargo new -q --vcs none --lib sum && cd sum
cargo test -q --offline 2>&1
mkdir -p src/bin && echo 'fn main() { println!(\"sum {}\", (1..=10).sum::<i32>()); }' > src/bin/print.rs
cargo run -q --offline --bin print
")
    .await?;
    assert!(output.contains("1 passed"), "{output}");
    assert_eq!(last(&output)?, "sum 55", "{output}");
    Ok(())
}

#[tokio::test]
async fn npm_packs_and_installs_a_package_with_its_scripts() -> Result<()> {
    let output = run("
mkdir one two
cat > one/package.json <<'END'
{\"name\": \"one\", \"version\": \"1.0.0\", \"main\": \"index.js\", \"scripts\": {\"postinstall\": \"echo built > built.txt\"}}
END
echo 'module.exports = () => require(\"fs\").readFileSync(__dirname + \"/built.txt\", \"utf8\").trim();' > one/index.js
(cd one && npm pack --silent)
cd two && npm init -y >/dev/null && npm install --offline --no-audit --no-fund --foreground-scripts ../one/one-1.0.0.tgz
node -e 'const { Worker } = require(\"worker_threads\"); new Worker(\"console.log(require(\\\"one\\\")())\", { eval: true })'
")
    .await?;
    assert_eq!(last(&output)?, "built", "{output}");
    Ok(())
}

#[tokio::test]
async fn pip_installs_into_an_environment() -> Result<()> {
    let output = run("
mkdir -p package/sample
echo 'VALUE = sum(range(10))' > package/sample/__init__.py
echo 'from setuptools import setup; setup(name=\"sample\", version=\"1\", packages=[\"sample\"])' > package/setup.py
python3 -m venv environment
environment/bin/pip install --no-index --no-build-isolation --no-use-pep517 ./package 2>&1
environment/bin/python -c 'import multiprocessing, sample; print(multiprocessing.Pool(2).map(abs, [-sample.VALUE]))'
")
    .await?;
    assert_eq!(last(&output)?, "[45]", "{output}");
    Ok(())
}

#[tokio::test]
async fn apt_installs_a_package_that_makes_a_user_and_changes_owners() -> Result<()> {
    let output = run("
mkdir -p build/DEBIAN build/var/lib/sample repository
cat > build/DEBIAN/control <<'END'
Package: sample
Version: 1
Architecture: all
Maintainer: Ada <ada@example.org>
Depends: adduser
Description: a sample
END
cat > build/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
adduser --system --group --no-create-home --home /var/lib/sample sample
chown sample:sample /var/lib/sample
install -m 2755 -o root -g sample /bin/true /usr/bin/sample
su -s /bin/sh sample -c 'id -un > /var/lib/sample/who'
END
chmod 755 build/DEBIAN/postinst
dpkg-deb --root-owner-group --build build repository/sample.deb >/dev/null
cd repository
{ dpkg-deb -f sample.deb; echo 'Filename: ./sample.deb'; echo \"Size: $(stat -c %s sample.deb)\"
  echo \"SHA256: $(sha256sum sample.deb | cut -d' ' -f1)\"; } > Packages
chmod -R a+rX /workspace
echo 'deb [trusted=yes] file:/workspace/repository ./' > /etc/apt/sources.list
rm -rf /etc/apt/sources.list.d/*
apt-get update 2>&1 && apt-get install -y sample 2>&1
stat -c '%U %a %n' /var/lib/sample /usr/bin/sample
cat /var/lib/sample/who
apt-get purge -y sample 2>&1 | tail -1 >/dev/null; cat /var/lib/dpkg/status | grep -c '^Package: sample$' || echo purged
")
    .await?;
    assert!(output.contains("sample 755 /var/lib/sample\nroot 2755 /usr/bin/sample\nsample\n"), "{output}");
    assert_eq!(last(&output)?, "purged", "{output}");
    Ok(())
}

#[tokio::test]
async fn a_database_server_starts_answers_and_stops() -> Result<()> {
    let output = run("
bin=$(echo /usr/lib/postgresql/*/bin)
install -d -o postgres -g postgres /workspace/data /run/postgresql
as() { runuser -u postgres -- \"$@\"; }
as $bin/initdb -D /workspace/data -A trust >/dev/null
as $bin/pg_ctl -D /workspace/data -w -t 60 -l /workspace/data/log -o '-c listen_addresses=127.0.0.1' start
as psql -h 127.0.0.1 -qAt <<'END'
create table numbers as select generate_series(1, 100000) as number;
create index on numbers (number);
set max_parallel_workers_per_gather = 2; set min_parallel_table_scan_size = 0; set parallel_setup_cost = 0; set parallel_tuple_cost = 0;
vacuum analyze numbers;
select sum(number) from numbers;
END
as $bin/pg_ctl -D /workspace/data -w -t 60 -m fast stop
")
    .await?;
    assert!(output.contains("\n5000050000\n") && output.contains("server stopped"), "{output}");
    Ok(())
}

#[tokio::test]
async fn debuggers_see_into_other_processes_of_the_sandbox() -> Result<()> {
    let output = run("
echo 'int twice(int x) { return 2 * x; } int main(void) { return twice(0); }' > one.c && gcc -g -o one one.c
strace -f -e trace=execve ./one 2>&1 | head -1
gdb -batch -ex 'break twice' -ex run -ex bt ./one 2>&1 | tail -5
sleep 100 & timeout 1 strace -p $! 2>&1 || true; kill %1
")
    .await?;
    assert!(output.contains("execve(\"./one\""), "{output}");
    assert!(output.contains("#0  twice (x=0)"), "{output}");
    assert!(output.contains("attached"), "{output}");
    Ok(())
}
