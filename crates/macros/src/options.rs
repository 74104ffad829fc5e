//! The options of the attribute.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitStr, Path, Token};

/// The longest name of a method, `service/method`, in bytes.
const NAME_MAX_BYTES: usize = 255;

/// `name = "…", codec = "…", crate = …`, and the names of the items that are made.
pub(crate) struct Options {
    pub(crate) name: LitStr,
    /// A type that is a codec.
    pub(crate) codec: TokenStream,
    /// Where the library is.
    pub(crate) library: Path,
    /// The names of the types that are made, if they are not the default's.
    pub(crate) client: Option<Ident>,
    pub(crate) server: Option<Ident>,
    pub(crate) methods: Option<Ident>,
}

enum Codec {
    Default,
    Named(LitStr),
    Path(Path),
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut name, mut codec) = (None, Codec::Default);
        let (mut client, mut server, mut methods) = (None, None, None);
        let mut library: Path = syn::parse_quote!(::ringmux);
        while !input.is_empty() {
            if input.peek(LitStr) {
                let value: LitStr = input.parse()?;
                let text = format!(
                    "the option of this value is missing: write `name = {:?}`",
                    value.value()
                );
                return Err(Error::new(value.span(), text));
            }
            let key = input.call(Ident::parse_any)?;
            let known = ["name", "codec", "crate", "client", "server", "methods"];
            if !known.iter().any(|known| key == known) {
                let text = format!(
                    "unknown option `{key}`: the options are `name = \"package.v1.Service\"`, \
                     `codec = \"postcard\"`, `crate = ::ringmux`, and for the names of types `client = ServiceClient`, \
                     `server = ServiceServer` and `methods = ServiceMethods`"
                );
                return Err(Error::new(key.span(), text));
            }
            input.parse::<Token![=]>()?;
            match &*key.to_string() {
                "name" => name = Some(service_name(input.parse()?)?),
                "codec" if input.peek(LitStr) => codec = Codec::Named(input.parse()?),
                "codec" => codec = Codec::Path(input.parse()?),
                "client" => client = Some(input.parse()?),
                "server" => server = Some(input.parse()?),
                "methods" => methods = Some(input.parse()?),
                _ => library = input.call(Path::parse_mod_style)?,
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let name = name.ok_or_else(|| {
            Error::new(
                Span::call_site(),
                "the service has no name: write `#[ringmux::service(name = \"package.v1.Service\")]`",
            )
        })?;
        Ok(Self {
            name,
            codec: codec.path(&library)?,
            library,
            client,
            server,
            methods,
        })
    }
}

fn service_name(name: LitStr) -> syn::Result<LitStr> {
    let text = name.value();
    match text.is_empty() || text.contains('/') {
        true => Err(Error::new(
            name.span(),
            "a service's name is not empty and has no `/`: write `name = \"package.v1.Service\"`",
        )),
        false => Ok(name),
    }
}

/// The name of a method on the wire, if it fits.
pub(crate) fn full_name(service: &LitStr, method: &str, span: Span) -> syn::Result<String> {
    let full = format!("{}/{method}", service.value());
    if method.is_empty() || method.contains('/') {
        let text = "a method's name is not empty and has no `/`: write `#[method(name = \"Get\")]`";
        return Err(Error::new(span, text));
    }
    if full.len() > NAME_MAX_BYTES {
        let len = full.len();
        let text = format!(
            "`{full}` has {len} bytes: the names of service and method together, with a `/`, have {NAME_MAX_BYTES} at most"
        );
        return Err(Error::new(span, text));
    }
    Ok(full)
}

impl Codec {
    fn path(self, library: &Path) -> syn::Result<TokenStream> {
        let name = match self {
            Self::Path(path) => return Ok(quote!(#path)),
            Self::Default if cfg!(feature = "postcard") => {
                return Ok(quote!(#library::rpc::Postcard));
            }
            Self::Default => {
                return Err(Error::new(
                    Span::call_site(),
                    "the service has no codec: turn on the feature `rpc-postcard` of ringmux, which makes postcard the default, \
                     or write `codec = \"raw\"`",
                ));
            }
            Self::Named(name) => name,
        };
        let (path, feature, there) = match &*name.value() {
            "raw" => (quote!(Raw), "rpc", true),
            "postcard" => (quote!(Postcard), "rpc-postcard", cfg!(feature = "postcard")),
            "prost" => (quote!(Prost), "rpc-prost", cfg!(feature = "prost")),
            other => {
                let text = format!(
                    "unknown codec `{other}`: write `codec = \"postcard\"`, `\"prost\"` or `\"raw\"`; \
                     one of your own is a path without quotes, `codec = my::Codec`"
                );
                return Err(Error::new(name.span(), text));
            }
        };
        match there {
            true => Ok(quote!(#library::rpc::#path)),
            false => {
                let text = format!("this codec needs the feature `{feature}` of ringmux");
                Err(Error::new(name.span(), text))
            }
        }
    }
}
