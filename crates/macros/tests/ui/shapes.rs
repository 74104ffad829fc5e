//! Messages in an order, or with an answer, that no kind of method has.

#![allow(dead_code)]

use ringmux_macros::service;

struct Context;
struct Status;
struct Sender<T>(T);
struct Receiver<T>(T);

#[service(name = "bank.v1.Bank", codec = "raw")]
trait Bank {
    async fn two(&self, cx: &Context, a: u64, b: u64) -> Result<u64, Status>;
    async fn three(&self, cx: &Context, a: u64, out: Sender<u64>, b: u64) -> Result<(), Status>;
    async fn turned(&self, cx: &Context, out: Sender<u64>, a: Receiver<u64>) -> Result<(), Status>;
    async fn only_out(&self, cx: &Context, out: Sender<u64>) -> Result<(), Status>;
    async fn both(&self, cx: &Context, a: u64, out: Sender<u64>) -> Result<u64, Status>;
    async fn borrowed(&self, cx: &Context, a: &str) -> Result<u64, Status>;
    async fn never_fails(&self, cx: &Context, a: u64) -> u64;
    async fn no_answer(&self, cx: &Context, a: u64);
    async fn before(&self, cx: &Context, out: Sender<u64>, a: u64) -> Result<(), Status>;
    async fn mixed(&self, cx: &Context, a: u64, b: Receiver<u64>) -> Result<u64, Status>;
    async fn other_error(&self, cx: &Context, a: u64) -> Result<u64, String>;
}

fn main() {}
