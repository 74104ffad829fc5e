//! The client's end of calls: a task for each call in flight.

use std::time::Instant;

use bytes::Bytes;
use ringmux::rpc::Channel;

use super::client::{Client, Tasks};
use super::during;
use crate::calls::{ECHO, ECHO_TEN, FEED, Ten};
use crate::failure::Failure;
use crate::message::{Numbered, Order};
use crate::workload::Codec;

impl Client {
    pub(super) fn start_calls(&self, calls: usize, codec: Codec, tasks: &mut Tasks) {
        for _ in 0..calls {
            let channel = Channel::new(self.session.clone());
            match codec {
                Codec::Raw => tasks.spawn_local(self.clone().raw_calls(channel)),
                Codec::Prost => tasks.spawn_local(self.clone().prost_calls(channel)),
            };
        }
    }

    pub(super) fn start_feeds(&self, calls: usize, tasks: &mut Tasks) {
        for _ in 0..calls {
            let channel = Channel::new(self.session.clone());
            tasks.spawn_local(self.clone().feed(channel));
        }
    }

    /// One call in flight, again and again.
    async fn raw_calls(self, channel: Channel) -> Result<u64, Failure> {
        let (mut message, mut order) = (Numbered::new(), Order::small());
        let mut started = Instant::now();
        while !self.window.is_done() {
            let request = Bytes::copy_from_slice(message.advance());
            let answer = channel.call(&ECHO, &request).await;
            let answer = answer.map_err(during("a call failed"))?;
            order.check([&answer[..]])?;
            started = self.round_trip_since(started);
        }
        Ok(0)
    }

    async fn prost_calls(self, channel: Channel) -> Result<u64, Failure> {
        let mut request = Ten::with_number(0);
        let mut started = Instant::now();
        while !self.window.is_done() {
            request.number += 1;
            let answer = channel.call(&ECHO_TEN, &request).await;
            let answer = answer.map_err(during("a call failed"))?;
            if answer != request {
                return Err(Failure::new(format!("{request:?} came back as {answer:?}")));
            }
            started = self.round_trip_since(started);
        }
        Ok(0)
    }

    /// The messages of one answer, to its end.
    async fn feed(self, channel: Channel) -> Result<u64, Failure> {
        let request = Bytes::new();
        let answers = channel.server_streaming(&FEED, &request).open().await;
        let mut answers = answers.map_err(during("cannot begin a feed"))?;
        let mut order = Order::small();
        while let Some(message) = answers.recv().await.map_err(during("a feed failed"))? {
            order.check([&message[..]])?;
            self.window.count(1);
        }
        Ok(order.received())
    }
}
