//! Methods without the call's context.

#![allow(dead_code)]

use ringmux_macros::service;

struct Context;
struct Status;

#[service(name = "bank.v1.Bank", codec = "raw")]
trait Bank {
    async fn nothing(&self) -> Result<u64, Status>;
    async fn request(&self, request: u64) -> Result<u64, Status>;
    async fn value(&self, cx: Context, request: u64) -> Result<u64, Status>;
    async fn context(&self, cx: &Context) -> Result<u64, Status>;
}

fn main() {}
