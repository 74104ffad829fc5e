//! The items that are made of a trait.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Attribute, Ident, ItemTrait, ReturnType, TraitItem};

use crate::method::{Kind, Method};
use crate::options::Options;
use crate::service::methods;

/// The trait and the items beside it; or the trait, so that its own users add no errors, and the errors.
pub(crate) fn service(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut item: ItemTrait = match syn::parse2(item.clone()) {
        Ok(item) => item,
        Err(error) => {
            let text = format!("`#[ringmux::service]` is for a trait: {error}");
            let error = syn::Error::new(error.span(), text).into_compile_error();
            return quote!(#item #error);
        }
    };
    let parsed = syn::parse2::<Options>(options)
        .and_then(|options| methods(&mut item, &options).map(|methods| (options, methods)));
    let made = match parsed {
        Ok((options, methods)) => Expansion::new(&item, &options, &methods).items(),
        Err(errors) => {
            for part in &mut item.items {
                if let TraitItem::Fn(function) = part {
                    function
                        .attrs
                        .retain(|attr| !attr.path().is_ident("method"));
                }
            }
            errors.into_compile_error()
        }
    };
    let item = with_futures(item);
    quote!(#item #made)
}

/// The trait with futures that are `Send`, which handlers have to be.
fn with_futures(mut item: ItemTrait) -> ItemTrait {
    for part in &mut item.items {
        let TraitItem::Fn(function) = part else {
            continue;
        };
        if function.sig.asyncness.take().is_none() {
            continue;
        }
        let output = match &function.sig.output {
            ReturnType::Default => quote!(()),
            ReturnType::Type(_, ty) => quote!(#ty),
        };
        // A handler that is not `Send` is told about with a note at the method's name.
        let future = quote_spanned! {function.sig.ident.span()=>
            impl ::core::future::Future<Output = #output> + ::core::marker::Send
        };
        function.sig.output = syn::parse_quote!(-> #future);
        if let Some(body) = function.default.take() {
            function.default = Some(syn::parse_quote!({ async move #body }));
        }
    }
    if item.supertraits.is_empty() {
        item.colon_token = Some(Default::default());
    }
    let place = item.ident.span();
    let send = quote_spanned!(place=> ::core::marker::Send);
    let sync = quote_spanned!(place=> ::core::marker::Sync);
    item.supertraits.push(syn::parse_quote!(#send));
    item.supertraits.push(syn::parse_quote!(#sync));
    item.supertraits.push(syn::parse_quote!('static));
    item
}

struct Expansion<'a> {
    item: &'a ItemTrait,
    options: &'a Options,
    methods: &'a [Method],
    server: Ident,
    client: Ident,
    constants: Ident,
    /// The parameter of the server, which is not the trait.
    generic: Ident,
    /// `cfg` of the trait.
    cfg: Vec<&'a Attribute>,
}

impl<'a> Expansion<'a> {
    fn new(item: &'a ItemTrait, options: &'a Options, methods: &'a [Method]) -> Self {
        let name = &item.ident;
        let named = |option: &Option<Ident>, kind: &str| {
            option
                .clone()
                .unwrap_or_else(|| format_ident!("{name}{kind}"))
        };
        let generic = if name == "T" { "S" } else { "T" };
        Self {
            item,
            options,
            methods,
            server: named(&options.server, "Server"),
            client: named(&options.client, "Client"),
            constants: named(&options.methods, "Methods"),
            generic: format_ident!("{generic}"),
            cfg: cfg_of(&item.attrs),
        }
    }

    fn items(&self) -> TokenStream {
        let (constants, server, client) = (self.constants(), self.server(), self.client());
        quote!(#constants #server #client)
    }

    fn constants(&self) -> TokenStream {
        let Self { constants, cfg, .. } = self;
        let vis = &self.item.vis;
        let (library, codec) = (&self.options.library, &self.options.codec);
        let doc = format!("The methods of [`{}`], as constants.", self.item.ident);
        let each = self.methods.iter().map(|method| {
            let (constant, name) = (&method.constant, &method.name);
            let (request, response) = (&method.request, &method.response);
            let (kind, make) = method.kind.names();
            let (cfg, doc) = (cfg_of(&method.attrs), format!("`{name}`."));
            // A message that the codec does not take is told about at the method's name.
            let codec = located_at(method.ident.span(), codec);
            let value = quote_spanned! {method.ident.span()=>
                #library::rpc::Method::#make::<#codec>(#name)
            };
            quote! {
                #[doc = #doc]
                #(#cfg)*
                #vis const #constant: #library::rpc::Method<#request, #response, #library::rpc::#kind> =
                    #value;
            }
        });
        quote! {
            #[doc = #doc]
            #(#cfg)*
            #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
            #[allow(dead_code)]
            #vis enum #constants {}

            #(#cfg)*
            #[allow(dead_code)]
            impl #constants {
                #(#each)*
            }
        }
    }

    fn server(&self) -> TokenStream {
        let Self {
            server,
            constants,
            generic,
            cfg,
            ..
        } = self;
        let (vis, name, library) = (&self.item.vis, &self.item.ident, &self.options.library);
        let service = &self.options.name;
        let doc = format!("Serves an implementation of [`{name}`]: for `ServerBuilder::add`.");
        let shown = server.to_string();
        let each = self.methods.iter().map(|method| {
            let (ident, constant) = (&method.ident, &method.constant);
            let (_, add) = method.kind.names();
            let (cfg, messages) = (cfg_of(&method.attrs), method.kind.messages());
            quote! {
                #(#cfg)*
                {
                    let service = ::std::sync::Arc::clone(&self.0);
                    router.#add(#constants::#constant, move |cx, #(#messages),*| {
                        let service = ::std::sync::Arc::clone(&service);
                        async move { #name::#ident(&*service, &cx, #(#messages),*).await }
                    });
                }
            }
        });
        quote! {
            #[doc = #doc]
            #(#cfg)*
            #[allow(dead_code)]
            #vis struct #server<#generic>(::std::sync::Arc<#generic>);

            #(#cfg)*
            #[allow(dead_code)]
            impl<#generic: #name> #server<#generic> {
                /// Serves this implementation.
                #[must_use]
                #vis fn new(service: #generic) -> Self {
                    Self::from_arc(::std::sync::Arc::new(service))
                }

                /// Serves an implementation that others have as well.
                #[must_use]
                #vis fn from_arc(service: ::std::sync::Arc<#generic>) -> Self {
                    Self(service)
                }
            }

            #(#cfg)*
            impl<#generic> ::core::clone::Clone for #server<#generic> {
                fn clone(&self) -> Self {
                    Self(::std::sync::Arc::clone(&self.0))
                }
            }

            #(#cfg)*
            impl<#generic> ::core::fmt::Debug for #server<#generic> {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    f.debug_struct(#shown).finish_non_exhaustive()
                }
            }

            #(#cfg)*
            #[allow(deprecated)]
            impl<#generic: #name> #library::rpc::Service for #server<#generic> {
                const NAME: &'static str = #service;

                fn register(self: ::std::sync::Arc<Self>, router: &mut #library::rpc::Router) {
                    #(#each)*
                    let _ = router;
                }
            }
        }
    }

    fn client(&self) -> TokenStream {
        let Self {
            client,
            constants,
            cfg,
            ..
        } = self;
        let (vis, library) = (&self.item.vis, &self.options.library);
        let service = &self.options.name;
        let doc = format!("Calls [`{}`] over a channel.", self.item.ident);
        let each = self.methods.iter().map(|method| {
            let (attrs, ident, constant) = (&method.attrs, &method.ident, &method.constant);
            let (request, response) = (&method.request, &method.response);
            let (kind, make) = method.kind.names();
            let doc = (!has_doc(attrs))
                .then(|| format!("Calls `{}`.", method.name))
                .into_iter();
            let begin = match method.kind {
                Kind::Unary => format_ident!("call"),
                _ => make,
            };
            let (parameter, argument) = match method.kind {
                Kind::Unary | Kind::ServerStreaming => {
                    (quote!(, request: &'a #request), quote!(, request))
                }
                Kind::ClientStreaming | Kind::Bidirectional => (quote!(), quote!()),
            };
            quote! {
                #(#[doc = #doc])*
                #(#attrs)*
                #vis fn #ident<'a>(
                    &'a self #parameter
                ) -> #library::rpc::Call<'a, #request, #response, #library::rpc::#kind> {
                    self.channel.#begin(&#constants::#constant #argument)
                }
            }
        });
        quote! {
            #[doc = #doc]
            #(#cfg)*
            #[derive(::core::clone::Clone, ::core::fmt::Debug)]
            #[allow(dead_code)]
            #vis struct #client {
                channel: #library::rpc::Channel,
            }

            #(#cfg)*
            #[allow(dead_code, clippy::needless_lifetimes)]
            impl #client {
                /// The name of the service.
                #vis const NAME: &'static str = #service;

                /// Calls go over this channel, or over the channel of this session.
                #[must_use]
                #vis fn new(channel: impl ::core::convert::Into<#library::rpc::Channel>) -> Self {
                    Self { channel: channel.into() }
                }

                /// The channel.
                #[must_use]
                #vis fn channel(&self) -> &#library::rpc::Channel {
                    &self.channel
                }

                #(#each)*
            }
        }
    }
}

/// The same tokens, shown in errors as if they were elsewhere.
fn located_at(place: Span, tokens: &TokenStream) -> TokenStream {
    let tokens = tokens.clone().into_iter().map(|mut token| {
        token.set_span(token.span().located_at(place));
        token
    });
    tokens.collect()
}

fn cfg_of(attrs: &[Attribute]) -> Vec<&Attribute> {
    let cfg = attrs.iter().filter(|attr| attr.path().is_ident("cfg"));
    cfg.collect()
}

fn has_doc(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| attr.path().is_ident("doc"))
}

impl Kind {
    /// Its type, and the functions of the library that make its constant and add its handler.
    fn names(self) -> (Ident, Ident) {
        let (kind, make) = match self {
            Self::Unary => ("Unary", "unary"),
            Self::ServerStreaming => ("ServerStreaming", "server_streaming"),
            Self::ClientStreaming => ("ClientStreaming", "client_streaming"),
            Self::Bidirectional => ("Bidirectional", "bidirectional"),
        };
        (format_ident!("{kind}"), format_ident!("{make}"))
    }

    /// The parameters of its handler after the context.
    fn messages(self) -> Vec<Ident> {
        let names: &[_] = match self {
            Self::Unary | Self::ClientStreaming => &["request"],
            Self::ServerStreaming | Self::Bidirectional => &["request", "out"],
        };
        names.iter().map(|name| format_ident!("{name}")).collect()
    }
}
