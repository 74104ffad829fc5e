//! One DRPC connection against a peer whose bytes are the input, in each variant, with an application driven by the input.
//!
//! ```text
//!   flags │ n │ script (n bytes) │ wire ...
//! ```
//! As in [`peer`](super::peer()), except that the wire has no handshake.

use std::time::{Duration, Instant};

use super::Input;
use super::pair::{self, play};
use super::peer::{PATIENCE, PIECES, Run};
use super::side::{Side, settings};
use crate::config::Config;
use crate::drpc::{CancelForm, FlowControl, Profile};
use crate::wire::drpc::check_sent;
use crate::wire::{Drpc, Role};

const ACCEPTOR: u8 = 1 << 0;
/// More than twice `drain_timeout`, after which a session without handles is closed.
const ORPHANED: Duration = Duration::from_secs(100);

/// The variant, by bits of the flags.
fn variant(flags: u8) -> Profile {
    match flags >> 1 & 3 {
        0 => Profile::STORJ.header(true),
        1 => Profile::STORJ.cancel(CancelForm::Hard),
        2 => Profile::COCKROACH
            .flow_control(FlowControl::WhenSeen)
            .window(20_000),
        _ => Profile::COCKROACH,
    }
}

fn config(profile: Profile, patience: Duration) -> Config {
    let settings = settings(patience).drpc(profile);
    settings.build().expect("valid")
}

/// Two honest connections, as [`pair`](super::pair()): a byte for the variant, then its input. A cancel ends no session.
///
/// # Panics
/// When one of the connections breaks a promise.
pub fn drpc_pair(input: &[u8]) {
    let mut input = Input(input);
    let profile = variant(input.byte()).cancel(CancelForm::Soft);
    play::<Drpc>(&config(profile, pair::PATIENCE), input.take(usize::MAX));
}

/// Feeds the input.
///
/// # Panics
/// When the connection breaks a promise.
pub fn drpc(input: &[u8]) {
    let mut input = Input(input);
    let flags = input.byte();
    let role = match flags & ACCEPTOR {
        0 => Role::Dialer,
        _ => Role::Acceptor,
    };
    let mut run: Run<Drpc> = Run::new(Side::new(
        role,
        &config(variant(flags), PATIENCE),
        Instant::now(),
    ));
    let steps = usize::from(input.byte());
    let mut script = Input(input.take(steps));
    while !script.is_empty() {
        let step = script.byte();
        run.side.hear(input.take(PIECES[usize::from(step & 7)]));
        run.act(step >> 3);
    }
    run.side.hear(input.take(usize::MAX));
    run.act(0);
    // A session without handles ends, whatever the peer does.
    match run.side.session.take() {
        Some(session) => session.close(),
        None => run.streams.clear(),
    }
    run.act(0);
    run.side.elapse(ORPHANED, &mut run.written);
    assert!(run.side.is_closed(), "it ends by its ceiling");
    check_sent(&run.written, role == Role::Dialer);
    run.side.finish(run.streams).is_back();
}
