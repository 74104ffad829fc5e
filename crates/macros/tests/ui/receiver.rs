//! Receivers that are not `&self`.

#![allow(dead_code)]

use ringmux_macros::service;

struct Context;
struct Status;

#[service(name = "bank.v1.Bank", codec = "raw")]
trait Bank {
    async fn mutable(&mut self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn value(self, cx: &Context, request: u64) -> Result<u64, Status>
    where
        Self: Sized;
    async fn none(cx: &Context, request: u64) -> Result<u64, Status>;
}

fn main() {}
