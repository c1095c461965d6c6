//! Encodings of what nodes send each other and what the engine's log holds. Reading is bounded by
//! the transport's frames; whatever is left over or missing is an error.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger_core::codec::{DecodeError, Reader, Writer};
use malachite::app::{
    streaming::{StreamContent, StreamId, StreamMessage},
    types::codec::{Codec, HasEncodedLen},
};
use malachite_consensus::{LivenessMsg, ProposedValue, SignedConsensusMsg};
use malachite_sync::{RawDecidedValue, Request, Response, Status, ValueResponse};
use malachite_types::{ExtendedCommitCertificate, ExtendedCommitSignature, PolkaCertificate, Round, ValidatorProof};

use super::context::{Address, Engine, Height, Part, Signature, Value};
use crate::PROPOSAL_BYTES_MAX;

/// Longest broadcast between ledgers: a signed note of the most members.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a proposal in one part.
pub(super) const PART_BYTES: usize = 128 << 10;
const STREAM_ID_BYTES_MAX: usize = 32;
const SIGNATURES_MAX: usize = 64;
const VALUES_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(super) struct Wire;

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

macro_rules! by_borsh {
    ($($of:ty),*) => { $(
        impl Codec<$of> for Wire {
            type Error = io::Error;

            fn decode(&self, bytes: Bytes) -> io::Result<$of> {
                <$of>::try_from_slice(&bytes)
            }

            fn encode(&self, message: &$of) -> io::Result<Bytes> {
                let mut bytes = Vec::new();
                message.serialize(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    )* };
}

by_borsh!(
    SignedConsensusMsg<Engine>,
    LivenessMsg<Engine>,
    ProposedValue<Engine>,
    PolkaCertificate<Engine>,
    Status<Engine>,
    Request<Engine>
);

macro_rules! by_hand {
    ($of:ty, $write:ident, $read:ident) => {
        impl Codec<$of> for Wire {
            type Error = io::Error;

            fn decode(&self, bytes: Bytes) -> io::Result<$of> {
                let mut reader = Reader::new(&bytes);
                let message = $read(&mut reader).map_err(invalid)?;
                reader.end().map_err(invalid)?;
                Ok(message)
            }

            fn encode(&self, message: &$of) -> io::Result<Bytes> {
                let mut writer = Writer::new();
                $write(&mut writer, message);
                Ok(writer.finish().into())
            }
        }
    };
}

by_hand!(Part, write_part, read_part);
by_hand!(StreamMessage<Part>, write_stream, read_stream);
by_hand!(ValidatorProof<Engine>, write_proof, read_proof);
by_hand!(Response<Engine>, write_response, read_response);

/// A round on the wire; none is the largest number, which no height reaches.
fn write_round(writer: &mut Writer, round: Option<u32>) {
    writer.u32(round.unwrap_or(u32::MAX));
}

fn read_round(reader: &mut Reader<'_>) -> Result<Option<u32>, DecodeError> {
    Ok(Some(reader.u32()?).filter(|round| *round != u32::MAX))
}

fn write_part(writer: &mut Writer, part: &Part) {
    match part {
        Part::Init { height, round, valid_round, proposer, len } => {
            writer.u8(0).u64(*height).u32(*round);
            write_round(writer, *valid_round);
            writer.fixed(&proposer.0).u32(*len);
        }
        Part::Data(bytes) => {
            writer.u8(1).bytes(bytes);
        }
        Part::Message(bytes) => {
            writer.u8(2).bytes(bytes);
        }
    }
}

fn read_part(reader: &mut Reader<'_>) -> Result<Part, DecodeError> {
    Ok(match reader.u8()? {
        0 => Part::Init {
            height: reader.u64()?,
            round: reader.u32()?,
            valid_round: read_round(reader)?,
            proposer: Address(reader.array()?),
            len: reader.u32()?,
        },
        1 => Part::Data(Bytes::copy_from_slice(reader.bytes(PART_BYTES)?)),
        2 => Part::Message(Bytes::copy_from_slice(reader.bytes(MESSAGE_BYTES_MAX)?)),
        _ => return Err(DecodeError::Range("part")),
    })
}

fn write_stream(writer: &mut Writer, message: &StreamMessage<Part>) {
    writer.bytes(&message.stream_id.to_bytes()).u64(message.sequence);
    match &message.content {
        StreamContent::Data(part) => write_part(writer.u8(0), part),
        StreamContent::Fin => {
            writer.u8(1);
        }
    }
}

fn read_stream(reader: &mut Reader<'_>) -> Result<StreamMessage<Part>, DecodeError> {
    let id = StreamId::new(Bytes::copy_from_slice(reader.bytes(STREAM_ID_BYTES_MAX)?));
    let sequence = reader.u64()?;
    let content = match reader.u8()? {
        0 => StreamContent::Data(read_part(reader)?),
        1 => StreamContent::Fin,
        _ => return Err(DecodeError::Range("stream content")),
    };
    Ok(StreamMessage::new(id, sequence, content))
}

fn write_proof(writer: &mut Writer, proof: &ValidatorProof<Engine>) {
    writer.bytes(&proof.public_key).bytes(&proof.peer_id).fixed(&proof.signature.0);
}

fn read_proof(reader: &mut Reader<'_>) -> Result<ValidatorProof<Engine>, DecodeError> {
    let (key, peer) = (reader.bytes(64)?.to_vec(), reader.bytes(64)?.to_vec());
    Ok(ValidatorProof::new(key, peer, Signature(reader.array()?)))
}

fn write_response(writer: &mut Writer, response: &Response<Engine>) {
    let Response::ValueResponse(response) = response;
    writer.u64(response.start_height.0).count(response.values.len());
    for value in &response.values {
        let certificate = &value.certificate;
        writer.u64(certificate.height.0);
        write_round(writer, certificate.round.as_u32());
        writer.fixed(&certificate.value_id.0).count(certificate.commit_signatures.len());
        for commit in &certificate.commit_signatures {
            writer.fixed(&commit.address.0).fixed(&commit.signature.0);
        }
        writer.bytes(&value.value_bytes);
    }
}

fn read_response(reader: &mut Reader<'_>) -> Result<Response<Engine>, DecodeError> {
    let start = Height(reader.u64()?);
    let mut values = Vec::new();
    for _ in 0..reader.count(VALUES_MAX)? {
        let height = Height(reader.u64()?);
        let round = read_round(reader)?.map_or(Round::Nil, Round::new);
        let value_id = Value(reader.array()?);
        let mut commit_signatures = Vec::new();
        for _ in 0..reader.count(SIGNATURES_MAX)? {
            let (address, signature) = (Address(reader.array()?), Signature(reader.array()?));
            commit_signatures.push(ExtendedCommitSignature::new(address, signature, None));
        }
        let certificate = ExtendedCommitCertificate { height, round, value_id, commit_signatures };
        let bytes = Bytes::copy_from_slice(reader.bytes(PROPOSAL_BYTES_MAX)?);
        values.push(RawDecidedValue::new(bytes, certificate));
    }
    Ok(Response::ValueResponse(ValueResponse::new(start, values)))
}

impl HasEncodedLen<Response<Engine>> for Wire {
    fn encoded_len(&self, response: &Response<Engine>) -> io::Result<usize> {
        let Response::ValueResponse(response) = response;
        let value = |value: &RawDecidedValue<Engine>| {
            8 + 4 + 32 + 4 + 84 * value.certificate.commit_signatures.len() + 4 + value.value_bytes.len()
        };
        Ok(8 + 4 + response.values.iter().map(value).sum::<usize>())
    }
}
