//! A running `ringmux`: started, read, signalled and ended by its own pid.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A limit longer than any step takes; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a line on stderr reports a wait of more than a second, which a busy machine adds to what a test expects.
pub(crate) fn tells_of_a_wait(line: &str) -> bool {
    line.starts_with("waiting for ")
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
    kill_process(pid, signal).expect("the process is there");
}

/// A process with its output. Killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Program {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, Stdio::piped())
    }

    /// With a given stderr; lines are available only from a pipe made here.
    pub(crate) fn start_with(args: &[&str], stderr: Stdio) -> Self {
        Self::under(&[], args, stderr)
    }

    /// With a socket as systemd passes it: descriptor 3, for the process of this id.
    pub(crate) fn passed(socket: OwnedFd, args: &[&str]) -> Self {
        let pass = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
        Self::spawn(&["sh", "-c", pass], args, socket.into(), Stdio::piped())
    }

    /// Started by another program, which becomes this one.
    pub(crate) fn under(wrapper: &[&str], args: &[&str], stderr: Stdio) -> Self {
        Self::spawn(wrapper, args, Stdio::null(), stderr)
    }

    fn spawn(wrapper: &[&str], args: &[&str], stdin: Stdio, stderr: Stdio) -> Self {
        let line = [wrapper, &[env!("CARGO_BIN_EXE_ringmux")], args].concat();
        let mut child = Command::new(line[0])
            .args(&line[1..])
            .env_remove("RUST_LOG")
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        let stdout = Lines::of(child.stdout.take().expect("stdout is piped"));
        let stderr = match child.stderr.take() {
            Some(pipe) => Lines::of(pipe),
            None => Lines::of(std::io::empty()),
        };
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// The address in the next line `listening on ADDR`.
    pub(crate) fn listening(&mut self) -> String {
        let line = self.stdout.wait_for("listening on ").unwrap_or_else(|| {
            panic!("it does not listen: {:?}", self.stderr.seen);
        });
        let addr = line.split_whitespace().nth(2).expect("an address");
        addr.to_owned()
    }

    /// The URL in the next line `metrics on URL`.
    pub(crate) fn metrics(&mut self) -> String {
        let line = self.stdout.wait_for("metrics on ").unwrap_or_else(|| {
            panic!("it shows no metrics: {:?}", self.stderr.seen);
        });
        line.split_whitespace().nth(2).expect("a URL").to_owned()
    }

    /// Waits for a line on stderr, from now or before, that contains all of these.
    pub(crate) fn logged(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = |line: &&String| words.iter().all(|word| line.contains(word));
            if let Some(line) = self.stderr.seen.iter().find(all) {
                return line.clone();
            }
            let more = self.stderr.next(deadline);
            assert!(more.is_some(), "no {words:?} in {:#?}", self.stderr.seen);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self::signal(&self.child, signal);
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("the process ends");
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        // A process that has ended has closed its output.
        let deadline = Instant::now() + PATIENCE;
        while self.stderr.next(deadline).is_some() {}
        while self.stdout.next(deadline).is_some() {}
        assert!(Instant::now() < deadline, "it does not end");
        self.child.wait().expect("the process ends")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The only line on stderr so far, except for reports of long waits.
    pub(crate) fn only_line(&self) -> &str {
        let mut lines = self.stderr.seen.iter().filter(|it| !tells_of_a_wait(it));
        match (lines.next(), lines.next()) {
            (Some(line), None) => line,
            _ => panic!("not one line: {:#?}", self.stderr.seen),
        }
    }

    /// Everything on stderr so far.
    pub(crate) fn stderr(&self) -> &[String] {
        &self.stderr.seen
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            while self.stderr.next(Instant::now() + PATIENCE).is_some() {}
            eprintln!("stderr of {}: {:#?}", self.child.id(), self.stderr.seen);
        }
    }
}

/// The lines of a pipe, read by a thread so that the process never blocks on the test.
struct Lines {
    more: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (lines, more) = channel();
        thread::spawn(move || read_lines(pipe, &lines));
        Self {
            more,
            seen: Vec::new(),
        }
    }

    fn next(&mut self, deadline: Instant) -> Option<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.more.recv_timeout(left) {
            Ok(line) => {
                self.seen.push(line.clone());
                Some(line)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    fn wait_for(&mut self, word: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.next(deadline)?;
            if line.contains(word) {
                return Some(line);
            }
        }
    }
}

fn read_lines(pipe: impl Read, lines: &Sender<String>) {
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        if lines.send(line).is_err() {
            return;
        }
    }
}
