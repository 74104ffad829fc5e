//! The attribute [`macro@service`], which `ringmux` exports with its feature `rpc`.

mod expand;
mod method;
mod options;
mod service;

use proc_macro::TokenStream;

/// Makes the client and the server of calls from a trait.
///
/// ```ignore
/// use ringmux::rpc::{Context, Receiver, Sender, Status};
///
/// /// Keeps accounts.
/// #[ringmux::service(name = "bank.v1.Bank")]
/// pub trait Bank {
///     /// One request, one answer.
///     async fn balance(&self, cx: &Context, request: Account) -> Result<Amount, Status>;
///     /// One request, a stream of answers.
///     async fn watch(&self, cx: &Context, request: Account, out: Sender<Amount>) -> Result<(), Status>;
///     /// A stream of requests, one answer.
///     async fn import(&self, cx: &Context, rows: Receiver<Row>) -> Result<Summary, Status>;
///     /// Streams in both directions.
///     async fn trade(&self, cx: &Context, orders: Receiver<Row>, fills: Sender<Amount>) -> Result<(), Status>;
/// }
/// ```
/// The trait stays, with futures that are `Send`; an `impl` of it has `async fn`s. Beside it there are
/// * `BankServer<T>`, a `Service` for `ServerBuilder::add`, from `new` or `from_arc`;
/// * `BankClient`, from `new` with a `Channel` or a `Session`. It is `Clone`, and each method takes `&self`, and `&request` where one
///   request is sent; it returns a `Call`, to be awaited or opened, or with `detach()` a future for a task of its own. `BankClient::NAME` is the service's name;
/// * `BankMethods`, with a constant of type `Method` for each method: `BankMethods::BALANCE`.
///
/// Methods are told apart by their types, by the last part of their paths: `Receiver<T>`, `Sender<T>`, `Context`,
/// `Result<T, Status>`.
///
/// # Options
/// * `name = "package.v1.Service"`: the name on the wire. Required.
/// * `codec = "postcard"`, `"prost"` or `"raw"`: the encoding of the messages. The first two need the features `rpc-postcard` and
///   `rpc-prost` of ringmux. A path, `codec = my::Codec`, names a `Codec` of the application. Default: postcard if its feature is on, else
///   one has to be named.
/// * `crate = path`: where ringmux is. Default `::ringmux`.
/// * `client = Name`, `server = Name`, `methods = Name`: other names for the types that are made, where those beside the trait have
///   theirs.
///
/// A method is called on the wire as in the trait, in upper camel case: `list_all` is `ListAll`. `#[method(name = "…")]` on a method gives
/// another name. `new`, `channel`, `clone`, `into` and `try_into` are functions of the client and `NAME` is its constant, so methods have other names. Where the
/// constants of two methods had one name, that of the second has a `_` behind it.
#[proc_macro_attribute]
pub fn service(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::service(options.into(), item.into()).into()
}
