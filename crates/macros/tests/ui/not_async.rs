//! Methods that are not async.

#![allow(dead_code)]

use ringmux_macros::service;

struct Context;
struct Status;

#[service(name = "bank.v1.Bank", codec = "raw")]
trait Bank {
    fn balance(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    fn watch(&self, request: u64) -> Result<u64, Status>;
}

fn main() {}
