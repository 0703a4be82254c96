use zstd_safe::{
    CCtx, CParameter, DCtx, ErrorCode, InBuffer, OutBuffer, ResetDirective, Strategy, compress_bound, get_error_name,
    zstd_sys::ZSTD_EndDirective,
};

use crate::random::Random;

pub(super) struct Zstd {
    writing: CCtx<'static>,
    reading: DCtx<'static>,
}

impl Default for Zstd {
    fn default() -> Self {
        Self { writing: CCtx::create(), reading: DCtx::create() }
    }
}

impl Zstd {
    pub(super) fn encode(&mut self, input: &[u8], random: &mut Random) -> (Vec<u8>, String) {
        // Levels above 12 take too long for all but small inputs.
        let highest = if input.len() > 4 << 10 { 12 } else { 22 };
        let level = random.between(0, highest + 20) as i32 - 20;
        let mut options = vec![CParameter::CompressionLevel(level)];
        options.extend(random.one_in(2).then_some(CParameter::ChecksumFlag(true)));
        options.extend(random.one_in(3).then_some(CParameter::ContentSizeFlag(false)));
        options.extend(random.one_in(4).then(|| CParameter::WindowLog(random.between(10, 20) as u32)));
        options.extend(random.one_in(8).then_some(CParameter::EnableLongDistanceMatching(true)));
        options.extend(random.one_in(8).then(|| CParameter::MinMatch(random.between(3, 7) as u32)));
        options.extend(random.one_in(8).then(|| CParameter::TargetCBlockSize(random.between(1340, 8000) as u32)));
        let strategies = [
            Strategy::ZSTD_fast,
            Strategy::ZSTD_dfast,
            Strategy::ZSTD_greedy,
            Strategy::ZSTD_lazy2,
            Strategy::ZSTD_btopt,
        ];
        options.extend(random.one_in(6).then(|| CParameter::Strategy(*random.choose(&strategies))));
        let described = format!("{options:?}");
        self.reset();
        for option in options {
            expect(self.writing.set_parameter(option));
        }
        if random.one_in(4) {
            // Two frames, one after the other.
            let (front, back) = input.split_at(random.below(input.len() + 1));
            let mut out = self.frame(front);
            out.extend(self.frame(back));
            return (out, format!("{described}, two frames"));
        }
        (self.frame(input), described)
    }

    pub(super) fn encode_at(&mut self, input: &[u8], level: i32) -> Vec<u8> {
        self.reset();
        expect(self.writing.set_parameter(CParameter::CompressionLevel(level)));
        self.frame(input)
    }

    fn reset(&mut self) {
        expect(self.writing.reset(ResetDirective::SessionAndParameters));
    }

    fn frame(&mut self, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(compress_bound(input.len()));
        expect(self.writing.compress2(&mut out, input));
        out
    }

    pub(super) fn decode(&mut self, input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(limit);
        let result = self.reading.decompress(&mut out, input);
        result.map_err(|code| get_error_name(code).to_owned())?;
        Ok(out)
    }
}

pub(super) fn encode_stream(input: &[u8], level: i32) -> Vec<u8> {
    let mut context = CCtx::create();
    expect(context.init(level));
    let mut out = Vec::with_capacity(compress_bound(input.len()));
    let mut written = OutBuffer::around(&mut out);
    let mut read = InBuffer::around(input);
    while read.pos() < input.len() {
        expect(context.compress_stream2(&mut written, &mut read, ZSTD_EndDirective::ZSTD_e_continue));
    }
    while expect(context.compress_stream2(&mut written, &mut read, ZSTD_EndDirective::ZSTD_e_end)) > 0 {}
    out
}

fn expect(result: Result<usize, ErrorCode>) -> usize {
    result.unwrap_or_else(|code| panic!("C zstd: {}", get_error_name(code)))
}
