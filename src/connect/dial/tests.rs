//! Races of addresses, lookups and their limits, and a connection that leads back to itself.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use super::*;

/// A time limit ample for every machine.
const AMPLE: Duration = Duration::from_secs(60);

/// A port that drops connection attempts: its listen backlog is full.
struct Deaf {
    addr: SocketAddr,
    _sockets: Vec<Socket>,
}

impl Deaf {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let connected = socket.connect_timeout(&addr, Duration::from_millis(500));
            if connected.is_err() {
                break;
            }
            sockets.push(socket);
        }
        Self {
            addr: addr.as_socket().unwrap(),
            _sockets: sockets,
        }
    }

    /// Unanswered connection attempts to it.
    fn dialled(&self) -> usize {
        let port = format!(":{:04X} 02 ", self.addr.port());
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        table.lines().filter(|line| line.contains(&port)).count()
    }
}

fn live() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// An address without a listener.
fn dead() -> SocketAddr {
    live().1
}

async fn race(addrs: &[SocketAddr], limit: Duration) -> Result<TcpStream, DialError> {
    let mut race = Race::default();
    let ended = timeout(limit, async { Ok(race.run(addrs.to_vec()).await) }).await;
    race.end(ended, limit)
}

#[tokio::test]
async fn an_address_that_swallows_everything_costs_a_quarter_of_a_second() {
    let (deaf, deafer) = (Deaf::new(), Deaf::new());
    let (_listener, addr) = live();
    let before = deaf.dialled();
    let at = Instant::now();
    let socket = race(&[deaf.addr, deafer.addr, addr], AMPLE).await.unwrap();
    let took = at.elapsed();
    assert_eq!(socket.peer_addr().unwrap(), addr);
    assert!(took >= 2 * ATTEMPT_DELAY && took < AMPLE / 2, "{took:?}");
    assert_eq!(deaf.dialled(), before, "the others are closed");
}

#[tokio::test]
async fn an_address_that_fails_is_followed_by_the_next_at_once() {
    let (_listener, addr) = live();
    // Clock not paused: a paused clock would hide waiting times.
    let dead: Vec<_> = (0..5).map(|_| dead()).collect();
    let socket = race(&[&dead[..], &[addr]].concat(), AMPLE).await.unwrap();
    assert_eq!(socket.peer_addr().unwrap(), addr);
}

#[tokio::test]
async fn when_all_fail_each_is_named_with_its_error() {
    let (one, two) = (dead(), dead());
    let error = race(&[one, two], AMPLE).await.unwrap_err();
    let DialError::Failed { tried } = &error else {
        panic!("{error}");
    };
    let addrs: Vec<_> = tried.iter().map(|attempt| attempt.addr).collect();
    assert_eq!(addrs, [one, two]);
    let said = error.to_string();
    assert_eq!(
        said,
        format!("{one}: Connection refused; {two}: Connection refused")
    );
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let io = io::Error::from(error);
    assert_eq!(io.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(io.to_string(), said);
    assert!(io.get_ref().unwrap().is::<DialError>());
}

#[tokio::test]
async fn at_the_limit_those_that_failed_and_those_that_were_silent_are_named() {
    let (dead, deaf) = (dead(), Deaf::new());
    let limit = Duration::from_millis(300);
    let error = race(&[dead, deaf.addr], limit).await.unwrap_err();
    let DialError::TimedOut { tried, .. } = &error else {
        panic!("{error}");
    };
    let kinds: Vec<_> = tried.iter().map(|a| (a.addr, a.error.kind())).collect();
    let refused = (dead, io::ErrorKind::ConnectionRefused);
    assert_eq!(kinds, [refused, (deaf.addr, io::ErrorKind::TimedOut)]);
    let said = error.to_string();
    assert!(said.starts_with("no connection within 300ms: "), "{said}");
    assert!(
        said.ends_with(&format!("{}: no answer", deaf.addr)),
        "{said}"
    );
}

#[tokio::test]
async fn one_address_that_was_given_as_one_gives_what_the_system_said() {
    let addr = dead();
    let error = dial(&addr.to_string(), AMPLE).await.unwrap_err();
    let error = error.into_io(&addr.to_string());
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    // For a name the error includes the address.
    let name = format!("localhost:{}", addr.port());
    let error = dial(&name, AMPLE).await.unwrap_err().into_io(&name);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[test]
fn families_take_turns_each_in_its_order_and_no_address_is_tried_twice() {
    let four = |n: u8| SocketAddr::from((Ipv4Addr::new(192, 0, 2, n), 80));
    let six = |n: u16| SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n), 80));
    let found = vec![six(1), six(2), six(3), four(1), six(2), four(1), four(2)];
    let order = [six(1), four(1), six(2), six(3), four(2)];
    assert_eq!(in_turn(found), order);
    assert_eq!(
        in_turn(vec![four(1), four(2), six(1)]),
        [four(1), six(1), four(2)]
    );
    let many: Vec<_> = (1..=40).map(four).chain((1..=40).map(six)).collect();
    let order = in_turn(many);
    assert_eq!(order.len(), ADDRESSES_MAX);
    assert!(order.contains(&four(8)) && order.contains(&six(8)));
    assert_eq!(in_turn(Vec::new()), []);
}

#[tokio::test]
async fn a_server_of_the_other_family_is_reached() {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("IPv6 on loopback");
    let addr = listener.local_addr().unwrap();
    let deaf = Deaf::new();
    let order = in_turn(vec![deaf.addr, deaf.addr, addr]);
    let socket = race(&order, AMPLE).await.unwrap();
    assert_eq!(socket.peer_addr().unwrap(), addr);
}

#[tokio::test]
async fn lookups_beyond_those_that_may_be_under_way_wait_and_addresses_do_not() {
    static PLACES: Semaphore = Semaphore::const_new(1);
    let held = PLACES.acquire().await.unwrap();
    let mut waiting = Box::pin(lookup("localhost:80", &PLACES));
    assert!(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
    assert!(lookup("192.0.2.1:80", &PLACES).await.is_ok());
    drop(held);
    let found = waiting.await.unwrap();
    assert!(
        found.iter().all(|addr| addr.ip().is_loopback()),
        "{found:?}"
    );
    // The place is released at the end of the lookup, before the result is sent.
    assert_eq!(PLACES.available_permits(), 1);
    assert!(matches!(
        lookup("no-such-host.invalid:80", &PLACES).await,
        Err(DialError::Lookup(_))
    ));
    let error = lookup("no port", &PLACES).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

/// The kernel cycles through its ephemeral ports, so that dialling one port repeatedly in the end picks it as source port.
/// It prefers even ports for connections, and odd ones for listeners.
#[tokio::test]
async fn a_connection_that_leads_back_to_itself_is_refused_and_leaves_the_port_to_its_server() {
    const DIALS_MAX: u32 = 200_000;
    let even = || {
        let mut addr = dead();
        addr.set_port(addr.port() & !1);
        addr
    };
    let mut addr = even();
    for n in 0..DIALS_MAX {
        match connect(addr).await {
            Err(error) if error.raw_os_error().is_none() => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                assert!(error.to_string().contains("itself"), "{error}");
                println!("dial {n} led back to itself");
                // Not even one in TIME_WAIT, which would hold the port. Binding it would prove less:
                // other processes' connections may hold it.
                let end = format!("0100007F:{:04X} ", addr.port());
                let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
                assert!(!table.contains(&end.repeat(2)), "{table}");
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            // Another test has taken the port.
            Ok(socket) => {
                assert_ne!(socket.local_addr().unwrap(), socket.peer_addr().unwrap());
                addr = even();
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{DIALS_MAX} dials of {addr}, and none led back");
}
