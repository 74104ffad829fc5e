//! Cost of encoding and decoding a frame: no I/O, no state, one thread.
//!
//! The module is compiled into the benchmark, because it is private to the crate.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/wire/native/frame/mod.rs"]
mod frame;

use frame::{Frame, HEADER_LEN, Header, Role, Settings, StreamId};

fn data(c: &mut Criterion) {
    let stream = StreamId::first(Role::Dialer);
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));

    group.bench_function("encode_data_header/64", |b| {
        b.iter(|| frame::data_header(black_box(64), black_box(true), black_box(false), stream));
    });

    let mut bytes = [0x5A; HEADER_LEN + 64];
    bytes[..HEADER_LEN].copy_from_slice(&frame::data_header(64, true, false, stream));
    group.bench_function("decode_check_parse/64", |b| {
        b.iter(|| {
            let bytes: &[u8] = black_box(&bytes);
            let (head, payload) = bytes.split_first_chunk().expect("a header");
            let header = Header::decode(*head);
            frame::check(header, black_box(16 * 1024)).expect("a right header");
            let frame = Frame::parse(header, payload).expect("a right frame");
            assert!(matches!(frame, Frame::Data { payload, end: true, .. } if payload.len() == 64));
        });
    });
    group.finish();
}

fn window(c: &mut Criterion) {
    let mut bytes = BytesMut::with_capacity(64);
    let credit = std::num::NonZeroU32::MAX;
    let scope = frame::Scope::Stream(StreamId::first(Role::Acceptor));
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));

    group.bench_function("window/encode", |b| {
        b.iter(|| {
            bytes.clear();
            frame::put_window(&mut bytes, black_box(scope), black_box(credit));
        });
    });
    group.bench_function("window/decode_check_parse", |b| {
        b.iter(|| read(black_box(&bytes)));
    });
    group.finish();
}

fn settings(c: &mut Criterion) {
    let mut bytes = BytesMut::with_capacity(64);
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));

    group.bench_function("settings/encode", |b| {
        b.iter(|| {
            bytes.clear();
            black_box(&Settings::FLOORS).put(&mut bytes);
        });
    });
    group.bench_function("settings/decode_check_parse", |b| {
        b.iter(|| read(black_box(&bytes)));
    });
    group.finish();
}

fn read(bytes: &[u8]) -> Frame<'_> {
    let (head, payload) = bytes.split_first_chunk().expect("a header");
    let header = Header::decode(*head);
    frame::check(header, Settings::FLOORS.max_frame).expect("a right header");
    Frame::parse(header, payload).expect("a right frame")
}

criterion_group!(benches, data, window, settings);
criterion_main!(benches);
