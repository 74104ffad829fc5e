//! Unary calls: one request and one answer, each in one frame, with the ids, the permissions and the credit of streams.
//!
//! A second, small kind of entry beside the streams. [`Calls`] has the entries and the frames that they owe; the steps that also concern
//! credit, permissions or limits are functions below `mux`: those of calls of this side in `caller`, of the peer's in `handler`.
//!
//! # States
//! ```text
//!   of this side   Queued ─CALL sent─► Sent ─REPLY, ERROR, CANCEL──────────► gone
//!                    └─cancel─► Void     └─cancel, deadline: owes CANCEL────► gone
//!   of the peer    Running ─answer─► Answering ─REPLY or ERROR sent──────────► gone
//!                    │                 └─CANCEL─► Void
//!                    ├─dropped: owes CANCEL──────────────────────────────────► gone
//!                    └─CANCEL─► Over ─the handler lets go────────────────────► gone
//! ```
//! * `Void`: the call is over, but a queue still has its place. A queue is swept when its void places may outnumber the others.
//! * A call of the peer gives its permission back when its handler has let go of it, as a stream does: cancels free no handler.
//! * The id of a call may go on as a stream: a server whose answer is longer than a frame, or has metadata, opens the direction
//!   back on the same id (`handler::call_becomes_stream`), and the caller makes a stream of its call when the first such frame
//!   arrives (`caller::stream_of_call`).
//!
//! # Memory
//! The bytes of a request are held on the session's window until a handler takes the call (`CallPort::is_taken`, looked at when it
//! is answered, and while the window is scarce); where requests hold most of a scarce window, the one that waits longest is
//! refused. Those of an answer are returned as they arrive: they belong to the caller's
//! future, which holds one frame at most. When the session ends, requests that handlers have not read and answers that callers
//! have not read are charged to the pool, until they are read or dropped: as messages of streams are (`Mux::end`).

use std::collections::VecDeque;

use slab::Slab;

use super::ids::Ids;
use super::port::{CallPort, SessionPort};
use super::streams::PRUNE_SLACK;

/// The state of a call, see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Queued,
    Sent,
    Running,
    Answering,
    Over,
    Void,
}

#[derive(Debug)]
pub(super) struct Entry<C> {
    /// 0 until it has one.
    pub(super) id: u32,
    pub(super) at: At,
    /// `None` once it is `Void`.
    pub(super) port: Option<C>,
    /// Of a request of the peer.
    pub(super) cost: u32,
    /// Session credit that a request holds until it is taken.
    pub(super) charge: u32,
    /// Reset by the peer before it was taken.
    pub(super) early: bool,
}

impl<C> Entry<C> {
    const VOID: Self = Self {
        id: 0,
        at: At::Void,
        port: None,
        cost: 0,
        charge: 0,
        early: false,
    };
}

/// What a handler did with its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The message of the port is the answer.
    Reply,
    /// The message of the port is an encoded error, see `failure`.
    Failure,
    /// It was dropped, or cancelled, with this code.
    Cancel(u32),
}

/// The calls of a session, and the frames that they owe.
#[derive(Debug)]
pub(crate) struct Calls<C> {
    pub(super) entries: Slab<Entry<C>>,
    /// The entry of each id.
    pub(super) by_id: Ids,
    /// Calls to be sent.
    pub(super) queue: VecDeque<u32>,
    /// Answers to be sent, which cost credit, and errors, which cost none.
    pub(super) replies: VecDeque<u32>,
    pub(super) failures: VecDeque<u32>,
    /// Void entries: each has a place in one of these three queues.
    voids: usize,
    /// Ids and codes of calls to be cancelled at the peer.
    pub(super) cancels: VecDeque<(u32, u32)>,
    /// Answered calls whose tasks are to be woken.
    pub(super) wakes: Vec<C>,
    /// The same of calls that are still here.
    pub(super) wakes_here: Vec<u32>,
    /// Calls were offered to the application.
    pub(super) offered: bool,
    /// There may be tasks to wake, or calls were offered.
    pub(crate) wakes_due: bool,
    /// There may be frames to send.
    pub(super) frames_due: bool,
    /// The peer is to be told whether this side takes calls.
    pub(crate) announce: bool,
    /// This side has said that it takes calls.
    pub(super) announced: bool,
    /// Requests that hold credit.
    pub(super) charged: u32,
    /// Calls that the peer has reset before they were taken; some may be taken by now.
    pub(super) early_resets: u32,
}

impl<C> Calls<C> {
    /// `seed`: unknown to the peer.
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            entries: Slab::new(),
            by_id: Ids::new(seed),
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            failures: VecDeque::new(),
            voids: 0,
            cancels: VecDeque::new(),
            wakes: Vec::new(),
            wakes_here: Vec::new(),
            offered: false,
            wakes_due: false,
            frames_due: false,
            announce: false,
            announced: false,
            charged: 0,
            early_resets: 0,
        }
    }
}

impl<C: CallPort> Calls<C> {
    /// Calls that are not void.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.voids
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an id is that of a call.
    #[inline]
    pub(crate) fn has(&self, id: u32) -> bool {
        self.by_id.find(id).is_some()
    }

    /// Calls that are not over on the wire.
    pub(crate) fn count_alive(&self) -> u64 {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| !matches!(entry.at, At::Over | At::Void))
            .count() as u64
    }

    /// Calls that the application holds: all but those that it has answered.
    pub(crate) fn count_held(&self) -> usize {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| !matches!(entry.at, At::Answering | At::Void))
            .count()
    }

    /// Whether all are over on the wire, and owe nothing.
    pub(crate) fn are_over(&self) -> bool {
        self.cancels.is_empty() && self.count_alive() == 0
    }

    /// Whether frames of calls may have to be sent.
    #[inline]
    pub(crate) const fn may_have_frames(&self) -> bool {
        self.frames_due
    }

    /// Whether frames of calls are to be sent; to be called when some were.
    pub(crate) fn has_frames(&mut self) -> bool {
        self.frames_due = !(self.queue.is_empty()
            && self.replies.is_empty()
            && self.failures.is_empty()
            && self.cancels.is_empty());
        self.frames_due
    }

    pub(super) fn wake_later(&mut self, port: C) {
        self.wakes.push(port);
        self.wakes_due = true;
    }

    /// Number of calls with tasks to wake.
    #[inline]
    pub(crate) fn waking(&self) -> usize {
        self.wakes.len() + self.wakes_here.len()
    }

    /// Wakes the tasks noted since the last call; the cells of calls that have gone may be used again.
    pub(crate) fn deliver_wakes<S: SessionPort<Call = C>>(&mut self, app: &mut S) {
        self.wakes_due = false;
        if std::mem::take(&mut self.offered) {
            app.wake_call_acceptor();
        }
        for slot in self.wakes_here.drain(..) {
            if let Some(entry) = self.entries.get_mut(slot as usize)
                && let Some(port) = &mut entry.port
            {
                port.wake();
            }
        }
        for mut port in self.wakes.drain(..) {
            port.wake();
            app.recycle_call(port);
        }
    }

    #[inline]
    pub(super) fn insert(&mut self, id: u32, at: At, port: C, cost: u32) -> u32 {
        let vacant = self.entries.vacant_entry();
        let slot = vacant.key() as u32;
        port.set_key(Some(slot.into()));
        if id != 0 {
            self.by_id.insert(id, slot);
        }
        self.charged += u32::from(cost > 0);
        // Filled in its place: a copy of fields that were just stored would wait for the stores.
        let entry = vacant.insert(Entry::VOID);
        entry.port = Some(port);
        (entry.id, entry.at) = (id, at);
        (entry.cost, entry.charge) = (cost, cost);
        slot
    }

    pub(super) fn find(&mut self, id: u32) -> Option<(u32, &mut Entry<C>)> {
        let slot = self.by_id.find(id)?;
        Some((slot, self.entries.get_mut(slot as usize)?))
    }

    /// Removes an entry that is in no queue; returns its port, unless it was void.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) -> Option<C> {
        let entry = self.entries.try_remove(slot as usize)?;
        if entry.id != 0 {
            self.by_id.remove(entry.id, slot);
        }
        self.charged -= u32::from(entry.charge > 0);
        self.early_resets -= u32::from(entry.early);
        let port = entry.port?;
        port.set_key(None);
        Some(port)
    }

    /// Leaves an entry to its queue; returns its port.
    pub(super) fn void(&mut self, slot: u32) -> Option<C> {
        let entry = self.entries.get_mut(slot as usize)?;
        entry.at = At::Void;
        let port = entry.port.take()?;
        port.set_key(None);
        if entry.id != 0 {
            self.by_id.remove(entry.id, slot);
            entry.id = 0;
        }
        self.voids += 1;
        self.prune();
        Some(port)
    }

    /// Drops void entries once most can be void, since the peer may hold back the credit of those in front of them: amortised
    /// by the entries that became void since the last time.
    fn prune(&mut self) {
        if self.voids <= self.len() + PRUNE_SLACK {
            return;
        }
        let entries = &mut self.entries;
        for queue in [&mut self.queue, &mut self.replies, &mut self.failures] {
            queue.retain(|slot| {
                let slot = *slot as usize;
                let void = entries.get(slot).is_none_or(|entry| entry.at == At::Void);
                if void {
                    entries.try_remove(slot);
                }
                !void
            });
        }
        self.voids = 0;
    }

    /// Calls reset by the peer that wait to be taken: counted again, without those taken since, if they seem more than `most`.
    pub(super) fn recount_early_resets(&mut self, most: u32) -> u32 {
        if self.early_resets > most {
            for (_, entry) in &mut self.entries {
                let taken = entry.port.as_ref().is_none_or(CallPort::is_taken);
                if entry.early && taken {
                    entry.early = false;
                    self.early_resets -= 1;
                }
            }
        }
        self.early_resets
    }

    /// Takes the credit that a request holds.
    pub(super) fn take_charge(&mut self, slot: u32) -> u32 {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return 0;
        };
        let charge = std::mem::take(&mut entry.charge);
        self.charged -= u32::from(charge > 0);
        charge
    }

    /// Session credit that requests hold, in bytes.
    pub(crate) fn count_charges(&self) -> u64 {
        if self.charged == 0 {
            return 0;
        }
        let charges = self.entries.iter().map(|(_, it)| u64::from(it.charge));
        charges.sum()
    }

    /// The first entry of a queue that is not void; void ones are dropped.
    pub(super) fn front(&mut self, queue: impl Fn(&mut Self) -> &mut VecDeque<u32>) -> Option<u32> {
        loop {
            let slot = *queue(self).front()?;
            let at = self.entries.get(slot as usize).map(|entry| entry.at);
            if at.is_some_and(|at| at != At::Void) {
                return Some(slot);
            }
            queue(self).pop_front();
            if at.is_some() {
                self.remove(slot);
                self.voids -= 1;
            }
        }
    }

    pub(crate) fn port_mut(&mut self, slot: u32) -> Option<&mut C> {
        self.entries.get_mut(slot as usize)?.port.as_mut()
    }

    pub(super) fn port(&self, slot: u32) -> Option<&C> {
        self.entries.get(slot as usize)?.port.as_ref()
    }
}

/// Sums over the calls of a session, for tests.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(crate) struct Books {
    /// Session credit that requests hold, in bytes.
    pub(crate) charged: u64,
    /// Permissions that the peer's calls have.
    pub(crate) of_peer: u64,
    /// Permissions that calls of this side have which were not sent.
    pub(crate) queued: u64,
}

/// Frames that calls owe, for tests.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) calls: usize,
    pub(crate) replies: usize,
    pub(crate) failures: usize,
    pub(crate) cancels: usize,
}

#[cfg(test)]
impl<C> Calls<C> {
    pub(crate) fn queued(&self) -> Queued {
        let alive = |queue: &VecDeque<u32>| {
            let slots = queue
                .iter()
                .filter_map(|slot| self.entries.get(*slot as usize));
            slots.filter(|entry| entry.at != At::Void).count()
        };
        Queued {
            calls: alive(&self.queue),
            replies: alive(&self.replies),
            failures: alive(&self.failures),
            cancels: self.cancels.len(),
        }
    }

    /// Entries, void ones among them.
    pub(crate) fn slots(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(any(test, fuzzing))]
impl<C> Calls<C> {
    pub(crate) fn books(&self) -> Books {
        let count = |states: &[At]| {
            let entries = self.entries.iter();
            entries.filter(|(_, it)| states.contains(&it.at)).count() as u64
        };
        let charges = self.entries.iter().map(|(_, it)| u64::from(it.charge));
        let charged = self.entries.iter().filter(|(_, it)| it.charge > 0).count();
        assert_eq!(self.charged as usize, charged);
        assert_eq!(self.voids as u64, count(&[At::Void]));
        Books {
            charged: charges.sum(),
            of_peer: count(&[At::Running, At::Answering, At::Over]),
            queued: count(&[At::Queued]),
        }
    }
}
