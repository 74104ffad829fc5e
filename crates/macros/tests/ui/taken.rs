//! Methods with the names of items that each client has.

#![allow(dead_code)]

use ringmux_macros::service;

struct Context;
struct Status;

#[service(name = "bank.v1.Bank", codec = "raw")]
trait Bank {
    async fn new(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn channel(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn clone(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn into(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn try_into(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn NAME(&self, cx: &Context, request: u64) -> Result<u64, Status>;
}

#[service(name = "bank.v1.Bank", codec = "raw", client = "BankCaller")]
trait Quoted {}

fn main() {}
