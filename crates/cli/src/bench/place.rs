//! Placement of the measured threads, and of competing threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::ValueEnum;

use ringmux_measure::failure::Failure;
use ringmux_measure::host::Host;
use ringmux_measure::machine::Cpus;

/// The values of `--place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Place {
    /// Client and server on a processor each
    Apart,
    /// Client and server on one processor
    OneCpu,
    /// The engines on threads of their own on one processor, the applications on another
    OneCpuEngines,
    /// Apart, on processors that other threads keep busy
    Busy,
}

impl Place {
    /// The places in which spinning costs other threads.
    pub(super) const SHARED: [Self; 3] = [Self::OneCpu, Self::OneCpuEngines, Self::Busy];

    /// The name on the command line and in the results.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Apart => "apart",
            Self::OneCpu => "one-cpu",
            Self::OneCpuEngines => "one-cpu-engines",
            Self::Busy => "busy",
        }
    }

    /// The processors of the measured threads, of those that there are.
    pub(super) fn cpus(self, cpus: Cpus) -> Cpus {
        match self {
            Self::Apart | Self::Busy => cpus,
            Self::OneCpu => cpus.both_on_first(),
            Self::OneCpuEngines => cpus.both_on_second(),
        }
    }

    /// Adapts a host to this place.
    pub(super) fn host(self, host: Host, cpus: &Cpus) -> Host {
        match self {
            Self::OneCpuEngines => Host {
                own_thread: true,
                engine_cpu: cpus.first(),
                ..host
            },
            Self::Apart | Self::OneCpu | Self::Busy => host,
        }
    }
}

/// Threads that keep both processors busy while it lives.
#[derive(Debug)]
pub(super) struct Crowd {
    done: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Crowd {
    /// Starts the competing threads of a place: one thread for each processor, or none.
    pub(super) fn at(place: Place, cpus: Cpus) -> Result<Self, Failure> {
        let mut crowd = Self {
            done: Arc::default(),
            threads: Vec::new(),
        };
        if place == Place::Busy {
            crowd.add(move || cpus.pin_client())?;
            crowd.add(move || cpus.pin_server())?;
        }
        Ok(crowd)
    }

    fn add(
        &mut self,
        pin: impl FnOnce() -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let done = Arc::clone(&self.done);
        let spinning = move || {
            // If it cannot be pinned, the kernel places it.
            let _ = pin();
            while !done.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let thread = thread::Builder::new().name("bench-crowd".to_owned());
        let started = thread.spawn(spinning);
        let started =
            started.map_err(|error| Failure::new("cannot start a thread").because(&error))?;
        self.threads.push(started);
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for place in Place::value_variants() {
            let value = place.to_possible_value().expect("no place is hidden");
            assert_eq!(value.get_name(), place.name());
        }
    }

    #[test]
    fn a_crowd_is_there_only_where_it_is_asked_for_and_ends_with_its_value() {
        let sizes = Place::value_variants().iter().map(|place| {
            let crowd = Crowd::at(*place, Cpus::unpinned()).unwrap();
            crowd.threads.len()
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [0, 0, 0, 2]);
    }
}
