//! Parts of a trait that no service has.

#![allow(dead_code)]

use ringmux_macros::service;

struct Context;
struct Status;

#[service(name = "bank.v1.Bank", codec = "raw")]
trait Generic<T> {
    async fn balance<U>(&self, cx: &Context, request: U) -> Result<T, Status>;
}

#[service(name = "bank.v1.Bank", codec = "raw")]
trait Parts {
    const LIMIT: u64;
    async fn new(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn get(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    #[method(name = "Get")]
    async fn fetch(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    #[method(title = "Put")]
    async fn put(&self, cx: &Context, request: u64) -> Result<u64, Status>;
}

#[service(name = "bank.v1.Bank", codec = "raw")]
struct Bank;

fn main() {}
