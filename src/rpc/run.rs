//! The four kinds of calls, from the request to the end.

use super::codec::Coding;
use super::context::Context;
use super::incoming::{Gone, Incoming};
use super::method::{Bidirectional, ClientStreaming, Method, ServerStreaming, Unary};
use super::receiver::Receiver;
use super::sender::Sender;
use super::status::Status;
use super::wire::flag;

pub(super) async fn unary<Req, Resp, F>(
    mut call: Incoming,
    method: Method<Req, Resp, Unary>,
    handler: impl FnOnce(Context, Req) -> F,
) where
    F: Future<Output = Result<Resp, Status>>,
{
    let Ok(request) = call.request(method.request).await else {
        return;
    };
    let Ok(cx) = context(&mut call) else { return };
    let outcome = call.run(cx, |cx| handler(cx, request)).await;
    if let Ok((cx, outcome)) = outcome {
        call.answer(&cx, outcome, method.response).await;
    }
}

pub(super) async fn server_streaming<Req, Resp, F>(
    mut call: Incoming,
    method: Method<Req, Resp, ServerStreaming>,
    handler: impl FnOnce(Context, Req, Sender<Resp>) -> F,
) where
    F: Future<Output = Result<(), Status>>,
{
    let Ok(request) = call.request(method.request).await else {
        return;
    };
    let Ok(cx) = context(&mut call) else { return };
    let Ok((mut call, shared)) = call.share() else {
        return;
    };
    let sender = Sender::of_handler(shared, method.response, cx.clone());
    let outcome = call.run(cx, |cx| handler(cx, request, sender)).await;
    if let Ok((cx, outcome)) = outcome {
        call.end_answers(&cx, outcome).await;
    }
}

pub(super) async fn client_streaming<Req, Resp, F>(
    call: Incoming,
    method: Method<Req, Resp, ClientStreaming>,
    handler: impl FnOnce(Context, Receiver<Req>) -> F,
) where
    F: Future<Output = Result<Resp, Status>>,
{
    let (mut call, receiver) = requests(call, method.request);
    let Ok((receiver, cx)) = first(&mut call, receiver).await else {
        return;
    };
    let outcome = call.run(cx, |cx| handler(cx, receiver)).await;
    if let Ok((cx, outcome)) = outcome {
        call.answer(&cx, outcome, method.response).await;
    }
}

pub(super) async fn bidirectional<Req, Resp, F>(
    call: Incoming,
    method: Method<Req, Resp, Bidirectional>,
    handler: impl FnOnce(Context, Receiver<Req>, Sender<Resp>) -> F,
) where
    F: Future<Output = Result<(), Status>>,
{
    let (call, receiver) = requests(call, method.request);
    let Ok((mut call, shared)) = call.share() else {
        return;
    };
    let Ok((receiver, cx)) = first(&mut call, receiver).await else {
        return;
    };
    let sender = Sender::of_handler(shared, method.response, cx.clone());
    let outcome = call.run(cx, |cx| handler(cx, receiver, sender)).await;
    if let Ok((cx, outcome)) = outcome {
        call.end_answers(&cx, outcome).await;
    }
}

/// The context of a call whose request was received.
fn context(call: &mut Incoming) -> Result<Context, Gone> {
    match call.metadata() {
        Ok(metadata) => Ok(call.context(metadata)),
        Err(status) => {
            call.refuse(&status);
            Err(Gone)
        }
    }
}

fn requests<Req>(mut call: Incoming, coding: Coding<Req>) -> (Incoming, Option<Receiver<Req>>) {
    let receiver = call
        .recv
        .take()
        .map(|recv| Receiver::new(recv, coding, None));
    (call, receiver)
}

/// The context of a call whose requests come one after the other: its metadata comes before them.
async fn first<Req>(
    call: &mut Incoming,
    receiver: Option<Receiver<Req>>,
) -> Result<(Receiver<Req>, Context), Gone> {
    let mut receiver = receiver.ok_or(Gone)?;
    let metadata = if call.head.flags & flag::METADATA_FOLLOWS == 0 {
        call.metadata()
    } else {
        let waited = call.wait_for_metadata(receiver.wait_for_metas()).await?;
        waited.and_then(|()| receiver.request_metadata())
    };
    match metadata {
        Ok(metadata) => Ok((receiver, call.context(metadata))),
        Err(status) => {
            call.refuse(&status);
            Err(Gone)
        }
    }
}
