//! This binary once more, as a process of its own that can be killed: as a server, or as a whole test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::{env, thread};

use ringmux::{Addr, Config, Driver, Engine, Session};
use rustix::process::{Pid, Signal, kill_process};

use crate::host::{AWAIT_GUARD, echo_stream, tokio_runtime};

/// The role of the process, and its argument.
const ROLE: &str = "RINGMUX_OUTAGE_ROLE";
const ARGUMENT: &str = "RINGMUX_OUTAGE_ARGUMENT";
/// The test that plays it.
const NAME: &str = "child::a_role_is_played_by_a_process_of_its_own";
/// Prefix of lines for the parent.
const MARK: &str = "outage: ";

/// Streams that a server grants.
pub(crate) const GRANTED: u32 = 600;

#[test]
fn a_role_is_played_by_a_process_of_its_own() {
    // As an ordinary test it has no role.
    let Ok(role) = env::var(ROLE) else { return };
    let argument = env::var(ARGUMENT).expect("an argument");
    match role.as_str() {
        "echo" => serve(&argument, Manner::Echo),
        "hold" => serve(&argument, Manner::Hold),
        "partition" => crate::partition::inside(),
        "probes" => crate::probes::inside(),
        "vanished" => crate::vanished::inside(),
        "cycles" => crate::cycles::alone(),
        role => panic!("no such role: {role}"),
    }
}

/// Sends a line to the parent.
pub(crate) fn tell(what: &str) {
    println!("\n{MARK}{what}");
}

/// The behaviour of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Sends everything back.
    Echo,
    /// Takes a message, reports the number of messages, and never answers.
    Hold,
}

/// A running process, killed when it is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
}

impl Child {
    /// Starts a role, as an argument of other programs if there are some.
    pub(crate) fn start(under: &[&str], role: &str, argument: &str) -> Self {
        let this = env::current_exe().expect("this binary");
        let this = this.to_str().expect("its path is text");
        let line = [under, &[this, NAME, "--exact", "--nocapture"]].concat();
        let mut process = Command::new(line[0])
            .args(&line[1..])
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            // Closed when this process ends, however it does: that ends the child.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", line[0]));
        let stdout = process.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, lines }
    }

    /// A server, and its address.
    pub(crate) fn server(driver: Driver, manner: Manner, listen: &Addr) -> (Self, Addr) {
        let role = match manner {
            Manner::Echo => "echo",
            Manner::Hold => "hold",
        };
        let child = Self::start(&[], role, &format!("{driver} {listen}"));
        let addr = child.told("listening ").parse();
        (child, addr.expect("an address"))
    }

    /// Starts a role with a network of its own, which it may change.
    pub(crate) fn in_own_network(role: &str) -> Self {
        let network = match rustix::process::geteuid().is_root() {
            true => &["unshare", "--net"][..],
            false => &["unshare", "--net", "--map-root-user"],
        };
        Self::start(network, role, "")
    }

    /// Waits for a line that begins with `begin`; returns the rest of it.
    pub(crate) fn told(&self, begin: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(AWAIT_GUARD);
            let line = line.unwrap_or_else(|error| panic!("it never tells {begin:?}: {error}"));
            let told = line
                .strip_prefix(MARK)
                .and_then(|told| told.strip_prefix(begin));
            if let Some(rest) = told {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Ends it as a lack of memory would.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("the process is there");
        self.process.wait().expect("it ends");
    }

    /// Waits for its end; panics with its output if it has failed.
    pub(crate) fn succeeds(mut self) {
        let printed: Vec<String> = self.lines.iter().collect();
        let status = self.process.wait().expect("it ends");
        assert!(status.success(), "{status}: {printed:#?}");
        for line in printed.iter().filter_map(|line| line.strip_prefix(MARK)) {
            println!("{line}");
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// ---- inside of it ---------------------------------------------------------------------------

/// Ends the process when its parent does.
pub(crate) fn follow_the_parent() {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
}

fn serve(argument: &str, manner: Manner) {
    follow_the_parent();
    let (driver, listen) = argument.split_once(' ').expect("two words");
    let driver: Driver = driver.parse().expect("a driver");
    let listen: Addr = listen.parse().expect("an address");
    let engine = Engine::thread(driver).expect("the driver works here");
    let config = Config::builder().max_streams(GRANTED).build().unwrap();
    tokio_runtime().block_on(async {
        let listener = engine.listen(&listen, &config).await.expect("a free port");
        tell(&format!("listening {}", listener.local_addr()));
        let held = Arc::new(AtomicU64::new(0));
        loop {
            let session = listener.accept().await.expect("it is not shut down");
            tokio::spawn(serve_session(session, manner, Arc::clone(&held)));
        }
    });
}

async fn serve_session(session: Session, manner: Manner, held: Arc<AtomicU64>) {
    while let Ok(Some((send, mut recv))) = session.accept().await {
        let held = Arc::clone(&held);
        tokio::spawn(async move {
            if manner == Manner::Echo {
                return echo_stream((send, recv)).await;
            }
            if let Ok(Some(_)) = recv.recv().await {
                tell(&format!(
                    "holding {}",
                    1 + held.fetch_add(1, Ordering::Relaxed)
                ));
            }
            std::future::pending::<()>().await;
        });
    }
}
