//! A method of a service, from its signature.

use heck::{ToShoutySnakeCase, ToUpperCamelCase};
use proc_macro2::Span;
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Ident, LitStr, PathArguments, ReturnType, Signature,
    TraitItemFn, Type,
};

use crate::options::{Options, full_name};
use crate::service::report;

/// Items that each client has. `into` and `try_into` are those of all types, and would be called instead of a method.
const CLIENT_ITEMS: [(&str, &str); 6] = [
    ("new", "a function"),
    ("channel", "a function"),
    ("clone", "a function"),
    ("into", "a function"),
    ("try_into", "a function"),
    ("NAME", "a constant"),
];

const SHAPES: &str = "a method has one of the shapes \
    `(&self, cx: &Context, request: T) -> Result<U, Status>`, \
    `(&self, cx: &Context, request: T, out: Sender<U>) -> Result<(), Status>`, \
    `(&self, cx: &Context, requests: Receiver<T>) -> Result<U, Status>` and \
    `(&self, cx: &Context, requests: Receiver<T>, out: Sender<U>) -> Result<(), Status>`";

/// Which side sends a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Unary,
    ServerStreaming,
    ClientStreaming,
    Bidirectional,
}

/// A method, as the client, the server and its constant need it.
pub(crate) struct Method {
    /// Attributes that describe or disable the method: `doc`, `cfg`, `deprecated`.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) ident: Ident,
    /// The name of its constant.
    pub(crate) constant: Ident,
    /// `service/method`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) request: Type,
    pub(crate) response: Type,
}

impl Method {
    pub(crate) fn parse(function: &mut TraitItemFn, options: &Options) -> syn::Result<Self> {
        let renamed = take_name(&mut function.attrs)?;
        let sig = &function.sig;
        let mut errors = None;
        check_form(sig, &mut errors);
        let shape = shape(sig);
        if let Some(mut errors) = errors {
            if let Err(error) = shape {
                errors.combine(error);
            }
            return Err(errors);
        }
        let (kind, request, response) = shape?;

        let ident = sig.ident.clone();
        let rust_name = ident.unraw().to_string();
        let taken = CLIENT_ITEMS.iter().find(|(name, _)| *name == rust_name);
        if let Some((_, item)) = taken {
            let text = format!(
                "the client has {item} `{rust_name}`: write another name, with `#[method(name = \"{}\")]` above it",
                rust_name.to_upper_camel_case()
            );
            return Err(Error::new(ident.span(), text));
        }
        let (name, span) = match renamed {
            Some(name) => (name.value(), name.span()),
            None => (rust_name.to_upper_camel_case(), ident.span()),
        };
        let kept = ["doc", "cfg", "deprecated"];
        let mut attrs = function.attrs.clone();
        attrs.retain(|attr| kept.iter().any(|kept| attr.path().is_ident(kept)));
        Ok(Self {
            attrs,
            name: full_name(&options.name, &name, span)?,
            constant: constant(&rust_name, ident.span()),
            ident,
            kind,
            request,
            response,
        })
    }
}

/// The name of a method's constant.
fn constant(rust_name: &str, span: Span) -> Ident {
    let name = rust_name.to_shouty_snake_case();
    match name.chars().next() {
        // Of `__`, which leaves nothing.
        None => format_ident!("__", span = span),
        Some(first) if first.is_ascii_digit() => format_ident!("_{name}", span = span),
        Some(_) => format_ident!("{name}", span = span),
    }
}

/// Takes `#[method(name = "…")]` off.
fn take_name(attrs: &mut Vec<Attribute>) -> syn::Result<Option<LitStr>> {
    let mut name = None;
    let mut errors = None;
    attrs.retain(|attr| {
        if !attr.path().is_ident("method") {
            return true;
        }
        let parsed = attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown option: write `#[method(name = \"Get\")]`"));
            }
            name = Some(meta.value()?.parse()?);
            Ok(())
        });
        if let Err(error) = parsed {
            report(&mut errors, error);
        }
        false
    });
    errors.map_or(Ok(name), Err)
}

/// Everything but the types.
fn check_form(sig: &Signature, errors: &mut Option<Error>) {
    if sig.asyncness.is_none() {
        let text = format!(
            "a method of a service is async: write `async fn {}`",
            sig.ident
        );
        report(errors, Error::new_spanned(sig.fn_token, text));
    }
    if !sig.generics.params.is_empty() {
        let text = "a method of a service has no generic parameters: write the types";
        report(errors, Error::new_spanned(&sig.generics, text));
    }
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) => {
            if receiver.to_token_stream().to_string() != "& self" {
                let text = "calls run beside each other and share the service: write `&self`";
                report(errors, Error::new_spanned(receiver, text));
            }
        }
        _ => {
            let text = format!(
                "a method of a service has a receiver: write `async fn {}(&self, cx: &Context, …)`",
                sig.ident
            );
            report(errors, Error::new_spanned(&sig.ident, text));
        }
    }
}

/// The kind of a method, and the types of its messages.
fn shape(sig: &Signature) -> syn::Result<(Kind, Type, Type)> {
    let types: Vec<&Type> = sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(typed) => Some(&*typed.ty),
            FnArg::Receiver(_) => None,
        })
        .collect();
    let Some((context, messages)) = types.split_first() else {
        let text = "the call's context is missing: write `cx: &Context` after `&self`, and then the request";
        return Err(Error::new(sig.paren_token.span.join(), text));
    };
    if !is_context(context) {
        let text = "the parameter after `&self` is the call's context: write `cx: &Context`";
        return Err(Error::new_spanned(context, text));
    }
    let answer = answer(sig)?;
    let (kind, request, sender) = match *messages {
        [first] => match inner(first, "Receiver") {
            Some(request) => (Kind::ClientStreaming, request, None),
            None => (Kind::Unary, first, None),
        },
        [first, second] => {
            let Some(response) = inner(second, "Sender") else {
                return Err(misplaced(first, second));
            };
            match inner(first, "Receiver") {
                Some(request) => (Kind::Bidirectional, request, Some(response)),
                None => (Kind::ServerStreaming, first, Some(response)),
            }
        }
        [] => {
            let text = "the request is missing: write `request: T`, or `requests: Receiver<T>` for a stream of them; \
                        one that is empty is `()`";
            return Err(Error::new(sig.paren_token.span.close(), text));
        }
        [_, _, third, ..] => return Err(Error::new_spanned(third, SHAPES)),
    };
    if let Type::Reference(_) = request {
        let text = "a request is owned, for it is read from bytes: write its type without `&`";
        return Err(Error::new_spanned(request, text));
    }
    if inner(request, "Sender").is_some() {
        let text =
            "the request is before the stream of answers: write `request: T, out: Sender<U>`";
        return Err(Error::new_spanned(request, text));
    }
    let response = match sender {
        None => answer,
        Some(response) if is_unit(answer) => response,
        Some(_) => {
            let text = "the answers go through the `Sender`: write `Result<(), Status>`";
            return Err(Error::new_spanned(answer, text));
        }
    };
    Ok((kind, request.clone(), response.clone()))
}

/// What is wrong with two parameters of which the second is no stream of answers.
fn misplaced(first: &Type, second: &Type) -> Error {
    let is_stream = |ty| inner(ty, "Sender").is_some() || inner(ty, "Receiver").is_some();
    if inner(first, "Sender").is_some() {
        let text =
            "the stream of answers is the last parameter: write `request: T, out: Sender<U>`";
        return Error::new_spanned(first, text);
    }
    if !is_stream(first) && !is_stream(second) {
        let text = "a call has one request: make one type of them, or a tuple, `request: (A, B)`";
        return Error::new_spanned(second, text);
    }
    Error::new_spanned(second, SHAPES)
}

/// `T` of `Result<T, Status>`.
fn answer(sig: &Signature) -> syn::Result<&Type> {
    let text = "a method of a service may fail: write `-> Result<T, Status>`";
    let ReturnType::Type(_, ty) = &sig.output else {
        let span: Span = sig.ident.span();
        return Err(Error::new(span, text));
    };
    match arguments(ty, "Result").as_deref() {
        Some([answer, error]) => {
            if arguments(error, "Status").is_none() {
                let text = "a method of a service fails with a status: write `Result<T, Status>`";
                return Err(Error::new(error.span(), text));
            }
            Ok(answer)
        }
        _ => Err(Error::new(ty.span(), text)),
    }
}

fn is_context(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => {
            reference.mutability.is_none() && arguments(&reference.elem, "Context").is_some()
        }
        _ => false,
    }
}

fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// `T` of `name<T>`.
fn inner<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    match arguments(ty, name).as_deref() {
        Some([inner]) => Some(inner),
        _ => None,
    }
}

/// The types between the angle brackets of a path whose last part has this name.
fn arguments<'a>(ty: &'a Type, name: &str) -> Option<Vec<&'a Type>> {
    let Type::Path(path) = ty else {
        return None;
    };
    let last = path.path.segments.last()?;
    if last.ident != name {
        return None;
    }
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return Some(Vec::new());
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    Some(types.collect())
}
