//! Services whose names, and those of whose methods, are also the names of items that are made of them.

use ringmux::rpc::{Context, Server, Status};

use super::host::{Host, soon};

/// Types that the names of the service lead to as well.
struct TClient(u64);
struct TServer(u64);
struct TMethods(u64);

#[ringmux::service(
    name = "names.v1.T",
    codec = "postcard",
    client = Caller,
    server = Answers,
    methods = Names
)]
trait T {
    async fn fmt(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn to_owned(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn drop(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn poll(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn register(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn unary(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn request(&self, cx: &Context, service: u64) -> Result<u64, Status>;
    async fn name(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    async fn get_all(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    #[method(name = "Get-All")]
    async fn get_all_(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    #[method(name = "One")]
    async fn _1(&self, cx: &Context, request: u64) -> Result<u64, Status>;
    #[method(name = "None")]
    async fn __(&self, cx: &Context, request: u64) -> Result<u64, Status>;
}

struct Adds;

macro_rules! adds {
    ($($method:ident $more:literal),+) => {
        impl T for Adds {
            $(async fn $method(&self, _: &Context, request: u64) -> Result<u64, Status> {
                Ok(request + $more)
            })+
        }

        const METHODS: &[(&str, u64)] = &[$((stringify!($method), $more)),+];

        async fn call(client: &Caller, method: &str, request: u64) -> Result<u64, Status> {
            match method {
                $(stringify!($method) => client.$method(&request).await,)+
                _ => panic!("{method}"),
            }
        }
    };
}

adds!(
    fmt 1, to_owned 2, drop 3, poll 4, register 5, unary 6, request 7, name 8, get_all 9, get_all_ 10, _1 11, __ 12
);

#[tokio::test]
async fn methods_are_called_whatever_they_are_called() {
    let host = Host::new(Server::builder().add(Answers::new(Adds))).await;
    let client = Caller::new(host.channel.clone()).clone();
    for (method, more) in METHODS {
        let answer = soon(call(&client, method, 100)).await;
        assert_eq!(answer.unwrap(), 100 + more, "{method}");
    }
    let names = [Names::GET_ALL, Names::GET_ALL_, Names::_1, Names::__].map(|it| it.name());
    let called = ["GetAll", "Get-All", "One", "None"].map(|it| format!("names.v1.T/{it}"));
    assert_eq!(names.map(str::to_owned), called);
    assert_eq!(TClient(1).0 + TServer(2).0 + TMethods(3).0, 6);
}
