//! The one owner of stderr: a thread with a queue in front of it.
//!
//! A thread queues its line and continues. A line that finds the queue full, or that cannot be written, is lost; the
//! next written line is preceded by the number of lost ones.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::pace;

/// Lines that wait to be written, at most.
const QUEUE_LINES: usize = 1024;
/// The longest line, in bytes; longer ones are cut.
const LINE_BYTES_MAX: usize = 4096;
/// How long the end of the program waits until its last lines are written.
const FLUSH_TIME: Duration = Duration::from_millis(500);
/// Pause between attempts to queue the flush meanwhile.
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

static QUEUE: OnceLock<SyncSender<Job>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

enum Job {
    Line(Vec<u8>),
    /// Lines are being suppressed: report the count when due.
    Look,
    /// Answered when everything before it was written.
    Flush(SyncSender<()>),
}

/// When dropped, waits until queued lines are written, at most [`FLUSH_TIME`].
#[derive(Debug)]
pub(crate) struct Flushed(());

/// Starts the thread. If that fails, each thread writes its own lines, if stderr takes them at once.
pub(super) fn start() -> Flushed {
    let (queue, jobs) = sync_channel(QUEUE_LINES);
    let run = move || {
        Stderr::default().run(&jobs);
    };
    if thread::Builder::new()
        .name("log".to_owned())
        .spawn(run)
        .is_ok()
    {
        // Only the first call has a queue to set.
        let _ = QUEUE.set(queue);
    }
    Flushed(())
}

/// Queues a line that is no part of the log: written to stderr as it is, regardless of the filter. Never waits, never fails.
pub(crate) fn line(text: impl Display) {
    give(format!("{text}\n").into_bytes());
}

/// Lines that were lost so far.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Lines of a kind are being suppressed.
pub(super) fn look() {
    if let Some(queue) = QUEUE.get() {
        // If the queue is full, the writer runs soon anyway.
        let _ = queue.try_send(Job::Look);
    }
}

fn give(mut line: Vec<u8>) {
    if line.len() > LINE_BYTES_MAX {
        line.truncate(LINE_BYTES_MAX);
        line.extend_from_slice("…\n".as_bytes());
    }
    let given = match QUEUE.get() {
        Some(queue) => queue.try_send(Job::Line(line)).is_ok(),
        None => write_at_once(io::stderr(), &line),
    };
    if !given {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the line was written, without waiting. A pipe that is ready has room for 4096 bytes.
fn write_at_once(to: impl AsFd, line: &[u8]) -> bool {
    let line = &line[..line.len().min(LINE_BYTES_MAX)];
    let ready = poll(
        &mut [PollFd::new(&to, PollFlags::OUT)],
        Some(&Timespec::default()),
    );
    matches!(ready, Ok(1..))
        && rustix::io::write(&to, line).is_ok_and(|written| written == line.len())
}

/// The subscriber's output: a line in each call.
pub(super) struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut text = line.to_vec();
        // Line breaks in a peer's text are replaced, so that it stays one line.
        let end = text.len().saturating_sub(1);
        for byte in &mut text[..end] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        give(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        let Some(queue) = QUEUE.get() else { return };
        let deadline = Instant::now() + FLUSH_TIME;
        let (done, written) = sync_channel(1);
        let mut job = Job::Flush(done);
        while let Err(TrySendError::Full(back)) = queue.try_send(job) {
            if Instant::now() >= deadline {
                return;
            }
            job = back;
            thread::sleep(FLUSH_PAUSE);
        }
        // An unread pipe does not hold the program.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// The state of stderr.
#[derive(Debug, Default)]
struct Stderr {
    /// Of the lost lines, those already reported.
    told: u64,
    /// The last line was cut off in the middle.
    torn: bool,
}

impl Stderr {
    fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            let now = Instant::now();
            let mut next = None;
            for line in pace::due(now, &mut next) {
                self.write(&line);
            }
            let job = match next {
                Some(at) => jobs.recv_timeout(at.saturating_duration_since(now)),
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match job {
                Ok(Job::Line(line)) => self.write(&line),
                Ok(Job::Look) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Job::Flush(done)) => {
                    for line in pace::all() {
                        self.write(&line);
                    }
                    // The waiting thread may have given up.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        let lost = lost();
        if lost > self.told {
            let text = format!("{} lines of the log were lost\n", lost - self.told);
            if self.write_all(text.as_bytes()).is_ok() {
                self.told = lost;
            }
        }
        if self.write_all(line).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_all(&mut self, mut line: &[u8]) -> Result<(), Errno> {
        let stderr = io::stderr();
        if self.torn {
            retry(|| rustix::io::write(&stderr, b"\n"))?;
            self.torn = false;
        }
        let whole = line.len();
        while !line.is_empty() {
            match retry(|| rustix::io::write(&stderr, line)) {
                Ok(written) => line = &line[written..],
                Err(error) => {
                    self.torn = line.len() < whole;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Tries until it is done or has failed, waiting where stderr does not block.
fn retry(mut write: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match write() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let stderr = io::stderr();
                poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
            }
            // Zero bytes written without an error: treated as an error to avoid an endless loop.
            Ok(0) => return Err(Errno::IO),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn without_its_thread_a_line_is_written_at_once_or_lost_and_never_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        assert!(write_at_once(&writer, b"error: no thread can be made\n"));
        let mut read = [0; 64];
        let len = reader.read(&mut read).unwrap();
        assert_eq!(&read[..len], b"error: no thread can be made\n");

        let long = vec![b'.'; 2 * LINE_BYTES_MAX];
        let lines = (0..1_000).take_while(|_| write_at_once(&writer, &long));
        assert!(lines.count() < 1_000, "a full pipe takes no more");

        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert!(!write_at_once(&writer, b"not read\n"));
    }
}
