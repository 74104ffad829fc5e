//! Encodes any frame: for tests and fuzz targets. The protocol itself writes each kind where it needs it.

use bytes::BufMut;

use super::{
    Frame, Header, call_head, data_header, open_header, put_calls, put_cancel, put_error,
    put_goaway, put_meta, put_ping, put_window, read, reply_header,
};

/// Appends any frame of a known kind; an extension gets an empty payload on the session.
pub(crate) fn put(dst: &mut impl BufMut, frame: &Frame<'_>) {
    match *frame {
        Frame::Data {
            stream,
            payload,
            end,
            fin,
        } => {
            let length = super::lengths::saturate(payload.len());
            dst.put_slice(&data_header(length, end, fin, stream));
            dst.put_slice(payload);
        }
        Frame::Open { stream, block, fin } => {
            dst.put_slice(&open_header(stream, block.len(), fin));
            dst.put_slice(block);
        }
        Frame::Error {
            stream,
            code,
            message,
            details,
        } => put_error(dst, stream, code, message, details),
        Frame::Cancel { stream, code, stop } => put_cancel(dst, stream, code, stop),
        Frame::Window { scope, credit } => put_window(dst, scope, credit),
        Frame::Ping { opaque, ack } => put_ping(dst, opaque, ack),
        Frame::GoAway {
            last,
            code,
            debug,
            soon,
        } => put_goaway(dst, last, code, debug, soon),
        Frame::Settings(settings) => settings.put(dst),
        Frame::Meta { stream, block, fin } => put_meta(dst, stream, block, fin),
        Frame::Call {
            stream,
            payload,
            opening,
        } => {
            let (block, request) = payload.split_at_checked(opening).unwrap_or((payload, &[]));
            dst.put_slice(&call_head(stream, block.len(), request.len()));
            dst.put_slice(block);
            dst.put_slice(request);
        }
        Frame::Reply { stream, answer } => {
            dst.put_slice(&reply_header(stream, answer.len()));
            dst.put_slice(answer);
        }
        Frame::Calls { takes } => put_calls(dst, takes),
        Frame::Extension(kind) => dst.put_slice(
            &Header {
                length: 0,
                kind,
                flags: 0,
                stream: 0,
            }
            .encode(),
        ),
    }
}
