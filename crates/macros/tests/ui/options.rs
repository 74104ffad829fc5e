//! Options that are not there, or have no such value.

#![allow(dead_code)]

use ringmux_macros::service;

struct Context;
struct Status;

#[service(name = "bank.v1.Bank", codecs = "raw")]
trait Option {}

#[service(name = "bank.v1.Bank", codec = "json")]
trait Codec {}

#[service(name = "bank/v1/Bank", codec = "raw")]
trait Slash {}

#[service(name = bank, codec = "raw")]
trait Unquoted {}

#[service("bank.v1.Bank")]
trait Bare {}

fn main() {}
