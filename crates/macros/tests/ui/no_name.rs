//! A service without a name.

#![allow(dead_code)]

use ringmux_macros::service;

struct Context;
struct Status;

#[service(codec = "raw")]
trait Bank {
    async fn balance(&self, cx: &Context, request: u64) -> Result<u64, Status>;
}

fn main() {}
