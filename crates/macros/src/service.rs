//! A trait that is a service.

use std::collections::HashSet;

use quote::{ToTokens, format_ident};
use syn::{Error, ItemTrait, TraitItem};

use crate::method::Method;
use crate::options::Options;

/// Adds an error to those that were found before.
pub(crate) fn report(errors: &mut Option<Error>, error: Error) {
    match errors {
        Some(errors) => errors.combine(error),
        None => *errors = Some(error),
    }
}

/// The methods of a trait, or everything that is wrong with it.
///
/// Attributes that are the macro's own are taken off the trait.
pub(crate) fn methods(item: &mut ItemTrait, options: &Options) -> syn::Result<Vec<Method>> {
    let mut errors = None;
    if !item.generics.params.is_empty() {
        let text = "a service has no generic parameters: write the types, or make a trait for each";
        report(&mut errors, Error::new_spanned(&item.generics, text));
    }
    let (mut methods, mut names, mut constants) = (Vec::new(), HashSet::new(), HashSet::new());
    for part in &mut item.items {
        let TraitItem::Fn(function) = part else {
            let text = "a service has methods only: move it to a trait of its own";
            report(&mut errors, Error::new_spanned(part, text));
            continue;
        };
        match Method::parse(function, options) {
            Ok(method) if !names.insert(method.name.clone()) => {
                let text = format!(
                    "`{}` is the name of a method above: write `#[method(name = \"…\")]`",
                    method.name
                );
                report(&mut errors, Error::new_spanned(&method.ident, text));
            }
            Ok(mut method) => {
                // `get_all` and `getAll` are both `GET_ALL`.
                while !constants.insert(method.constant.to_string()) {
                    method.constant = format_ident!("{}_", method.constant);
                }
                methods.push(method);
            }
            Err(error) => report(&mut errors, error),
        }
    }
    if item.unsafety.is_some() {
        let text = "a service is a safe trait: write `trait`";
        report(
            &mut errors,
            Error::new_spanned(item.unsafety.to_token_stream(), text),
        );
    }
    errors.map_or(Ok(methods), Err)
}
