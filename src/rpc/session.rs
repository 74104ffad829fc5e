//! The session that a call goes over.

use tokio::time::Instant;

use super::channel::Target;
#[cfg(feature = "manage")]
use super::code::Code;
use super::context::Context;
#[cfg(feature = "manage")]
use super::parent::within;
use super::status::Status;
#[cfg(feature = "manage")]
use crate::error::{Chain, Processed};
use crate::handle::Session;
#[cfg(feature = "manage")]
use crate::manage::{Call, ManageError};

/// A call that a manager counts on its session until this is dropped.
#[cfg(feature = "manage")]
pub(super) type Counted<'a> = Option<Call<'a>>;
#[cfg(not(feature = "manage"))]
pub(super) type Counted<'a> = std::marker::PhantomData<&'a ()>;

/// A session for a call, as long as the call has time and its parent goes on.
pub(super) async fn session<'a>(
    target: &'a Target,
    deadline: Option<Instant>,
    parent: &Option<Context>,
) -> Result<(Session, Counted<'a>), Status> {
    let _ = (deadline, parent); // A session is there at once.
    match target {
        Target::Session(session) => Ok((session.clone(), Counted::default())),
        #[cfg(feature = "manage")]
        Target::Manager(manager) => {
            if deadline.is_some() && !crate::timer::has_time() {
                return Ok((manager.try_session_or_else(no_clock)?, None));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // The manager keeps the deadline, as it knows why there is no session.
            let found = within(None, parent, manager.session_for_call(left)).await?;
            let (session, counted) = found.map_err(without_session)?;
            Ok((session, Some(counted)))
        }
    }
}

/// Of a call that has a deadline, and would have to wait where no clock is.
#[cfg(feature = "manage")]
fn no_clock() -> Status {
    Status::given_up(Code::FAILED_PRECONDITION, Processed::No)
}

#[cfg(feature = "manage")]
#[cold]
fn without_session(error: ManageError) -> Status {
    if let ManageError::NotReady { .. } = error {
        let text = format!(
            "the time for the call ran out while it waited for a session: {}",
            Chain(&error)
        );
        return Status::library(Code::DEADLINE_EXCEEDED, Processed::No, text);
    }
    error.into()
}
