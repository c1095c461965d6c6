//! From the bytes of a body to a typed request, strictly. The first pass reads
//! straight into the type and gives up at the first fault without a word. Only
//! then a second pass walks the body along the request's [`Shape`] and lists
//! every fault with its JSON pointer. It builds no tree: its memory is bounded
//! by [`MEMBERS_MAX`] names a level and by the faults it may list.
//!
//! Invariant: the first pass accepts a body exactly when the second finds no
//! fault in it; a property test below holds them together.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::evidence::{EvidenceBatchItem, EvidenceBatchRequest};
use crate::limits::{DEPTH_MAX, MEMBERS_MAX};
use crate::problem::{Arg, FAULTS_MAX, Fault, FieldError, Place, Problem, ProblemCode, showable};
use crate::request::{MemberShape, ObjectShape, Request, Shape, Under};

/// Faults listed for one item of a batch: a thousand such lists are one answer.
const ITEM_FAULTS_MAX: usize = 10;

/// Numbers from here on are out of range rather than of the wrong type: 2^53.
const EXACT_INTEGERS_END: f64 = 9_007_199_254_740_992.0;

/// Reads a body whole, or says everything that is wrong with it.
pub fn parse<T: Request>(body: &[u8]) -> Result<T, Problem> {
    check_length::<T>(body)?;
    if let Some(request) = read::<T>(body) {
        return Ok(request);
    }
    let found = inspect(body, T::SHAPE, false)?;
    Err(Problem::from_faults(found.whole))
}

/// Reads a batch. What is wrong with the body as a whole refuses it; what is
/// wrong inside an item is that item's own answer, so that one bad record does
/// not hold up the rest.
pub fn parse_batch(body: &[u8]) -> Result<Vec<Result<EvidenceBatchItem, Problem>>, Problem> {
    check_length::<EvidenceBatchRequest>(body)?;
    if let Some(batch) = read::<EvidenceBatchRequest>(body) {
        return Ok(batch.items.into_iter().map(Ok).collect());
    }
    let found = inspect(body, EvidenceBatchRequest::SHAPE, true)?;
    if !found.whole.is_empty() || found.items.is_empty() {
        return Err(Problem::from_faults(found.whole));
    }
    read_sound_items(body, found.items).ok_or_else(|| ProblemCode::InternalError.into())
}

/// Every fault of a value that was built rather than read.
pub(crate) fn faults_of_value<T: Request>(value: &T) -> Vec<FieldError> {
    match serde_json::to_vec(value).map(|body| inspect(&body, T::SHAPE, false)) {
        Ok(Ok(found)) => found.whole,
        Ok(Err(problem)) => problem.errors().to_vec(),
        Err(_) => vec![Fault::new(ProblemCode::InternalError).at(Place::Pointer(String::new()))],
    }
}

fn check_length<T: Request>(body: &[u8]) -> Result<(), Problem> {
    if body.len() > T::BODY_BYTES_MAX {
        return Err(Fault::new(ProblemCode::BodyTooLarge).limit("limit", T::BODY_BYTES_MAX).into());
    }
    Ok(())
}

/// The first pass.
fn read<T: Request>(body: &[u8]) -> Option<T> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let request = T::read(&mut json, &T::SHAPE).ok()?;
    json.end().ok()?;
    Some(request)
}

/// The second pass. Fails on what cannot be walked to the end.
fn inspect(body: &[u8], shape: Shape, by_item: bool) -> Result<Found, Problem> {
    check_text(body)?;
    let mut walk = Walk { by_item, ..Walk::default() };
    let mut json = serde_json::Deserializer::from_slice(body);
    let walked = Step { shape: Some(shape), walk: &mut walk }.deserialize(&mut json);
    if let Err(error) = walked {
        return Err(walk.end_of_road(&error));
    }
    json.end().map_err(|error| Problem::from(at_position(ProblemCode::BodyTrailingData, &error)))?;
    Ok(walk.found)
}

/// What can be said of a body before it is JSON.
fn check_text(body: &[u8]) -> Result<(), Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(ProblemCode::BodyMissing.into());
    }
    if let Err(error) = std::str::from_utf8(body) {
        return Err(Fault::new(ProblemCode::BodyNotUtf8).limit("offset", error.valid_up_to()).into());
    }
    if body.starts_with("\u{feff}".as_bytes()) {
        return Err(ProblemCode::BodyHasBom.into());
    }
    Ok(())
}

fn at_position(code: ProblemCode, error: &serde_json::Error) -> Fault {
    Fault::new(code).limit("line", error.line()).limit("column", error.column())
}

/// The faults found, those inside items of a batch apart.
#[derive(Default)]
struct Found {
    whole: Vec<FieldError>,
    items: BTreeMap<usize, Vec<FieldError>>,
}

/// Where the second pass stands.
#[derive(Default)]
struct Walk {
    by_item: bool,
    path: Vec<Segment>,
    depth: usize,
    found: Found,
    /// A fault after which walking on would cost too much.
    fatal: Option<FieldError>,
}

enum Segment {
    Member(String),
    Index(usize),
}

impl Walk {
    fn report(&mut self, fault: impl Into<Fault>) {
        let (list, limit) = match self.path.as_slice() {
            [Segment::Member(name), Segment::Index(item), ..] if self.by_item && name == "items" => {
                (self.found.items.entry(*item).or_default(), ITEM_FAULTS_MAX)
            }
            _ => (&mut self.found.whole, FAULTS_MAX),
        };
        if list.len() < limit {
            list.push(fault.into().at(Place::Pointer(pointer(&self.path))));
        }
    }

    fn report_member(&mut self, name: &str, fault: impl Into<Fault>) {
        self.path.push(Segment::Member(name.to_owned()));
        self.report(fault);
        self.path.pop();
    }

    fn wrong_type(&mut self, shape: Option<Shape>) {
        if let Some(shape) = shape {
            self.report(Fault::new(ProblemCode::FieldType).with("expected", Arg::Words(shape.words())));
        }
    }

    fn give_up<E: Error>(&mut self, fault: Fault) -> E {
        self.fatal = Some(fault.at(Place::Pointer(pointer(&self.path))));
        E::custom("given up")
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.give_up(Fault::new(ProblemCode::BodyTooDeep).limit("limit", DEPTH_MAX)));
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Why the walk did not reach the end of the body.
    fn end_of_road(self, error: &serde_json::Error) -> Problem {
        let fault = self.fatal.unwrap_or_else(|| {
            let fault = if is_number_out_of_range(error) {
                ProblemCode::FieldOutOfRange.into()
            } else {
                at_position(ProblemCode::BodyNotJson, error)
            };
            fault.at(Place::Pointer(pointer(&self.path)))
        });
        fault.into()
    }
}

/// serde_json tells a number beyond every float, such as 1e999, by its text only.
fn is_number_out_of_range(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("number out of range")
}

/// The JSON pointer of a path; it ends before the first name that is not shown.
/// Names that are shown hold neither `~` nor `/`, so none needs escaping.
fn pointer(path: &[Segment]) -> String {
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Index(index) => out.push_str(&format!("/{index}")),
            Segment::Member(name) => match showable(name) {
                Some(name) => out.push_str(&format!("/{name}")),
                None => break,
            },
        }
    }
    out
}

/// Walks one value. Without a shape only depth, members and repetition count.
struct Step<'w> {
    shape: Option<Shape>,
    walk: &'w mut Walk,
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.walk.wrong_type(self.shape);
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        if !matches!(self.shape, Some(Shape::Boolean)) {
            self.walk.wrong_type(self.shape);
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match self.shape {
            Some(Shape::Integer { max }) if number > max => self.walk.report(out_of_range(max)),
            Some(Shape::Integer { .. }) => {}
            shape => self.walk.wrong_type(shape),
        }
        Ok(())
    }

    /// Only negative numbers come here.
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        match self.shape {
            Some(Shape::Integer { max }) => self.walk.report(out_of_range(max)),
            shape => self.walk.wrong_type(shape),
        }
        Ok(())
    }

    /// Fractions, exponents, and integers that fit in no `u64` come here.
    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        match self.shape {
            Some(Shape::Integer { max }) if number.abs() >= EXACT_INTEGERS_END => {
                self.walk.report(out_of_range(max));
            }
            shape => self.walk.wrong_type(shape),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.shape {
            Some(Shape::Text(rule)) => {
                if let Err(fault) = rule(text) {
                    self.walk.report(fault);
                }
            }
            shape => self.walk.wrong_type(shape),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let walk = self.walk;
        walk.enter::<A::Error>()?;
        let list = match self.shape {
            Some(Shape::Array(list)) => Some(list),
            shape => {
                walk.wrong_type(shape);
                None
            }
        };
        let mut count = 0;
        loop {
            walk.path.push(Segment::Index(count));
            let shape = list.map(|list| list.item);
            if items.next_element_seed(Step { shape, walk })?.is_none() {
                walk.path.pop();
                break;
            }
            walk.path.pop();
            count += 1;
            if let Some(list) = list.filter(|list| count > list.items_max) {
                return Err(walk.give_up(Fault::new(list.over).limit("limit", list.items_max)));
            }
        }
        if let Some(list) = list.filter(|_| count == 0) {
            walk.report(list.empty);
        }
        walk.leave();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let walk = self.walk;
        walk.enter::<A::Error>()?;
        let object = match self.shape {
            Some(Shape::Object(object)) => Some(object),
            shape => {
                walk.wrong_type(shape);
                None
            }
        };
        let mut seen: Vec<String> = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            if seen.len() == MEMBERS_MAX {
                let fault = Fault::new(ProblemCode::ObjectTooLarge).limit("limit", MEMBERS_MAX);
                return Err(walk.give_up(fault));
            }
            walk.path.push(Segment::Member(name.clone()));
            let member = object.and_then(|object| object.member(&name));
            let shape = if seen.contains(&name) {
                walk.report(ProblemCode::DuplicateJsonKey);
                None
            } else {
                if let Some(object) = object.filter(|_| member.is_none()) {
                    let known = Arg::Names(object.names);
                    walk.report(Fault::new(object.unknown).with("known", known));
                }
                member.map(|member| member.shape)
            };
            members.next_value_seed(Step { shape, walk })?;
            walk.path.pop();
            seen.push(name);
        }
        if let Some(object) = object {
            report_missing(object, &seen, walk);
        }
        walk.leave();
        Ok(())
    }
}

fn report_missing(object: &ObjectShape, seen: &[String], walk: &mut Walk) {
    for MemberShape { name, shape, missing } in object.members {
        if let Some(code) = missing.filter(|_| !seen.iter().any(|seen| seen == name)) {
            walk.report_member(name, Fault::new(code).with("expected", Arg::Words(shape.words())));
        }
    }
    if let Some(code) = object.needs_one.filter(|_| seen.is_empty()) {
        walk.report(Fault::new(code).with("known", Arg::Names(object.names)));
    }
}

fn out_of_range(max: u64) -> Fault {
    Fault::new(ProblemCode::FieldOutOfRange).with("min", Arg::Number(0)).with("max", Arg::Number(max))
}

/// The items of a walked batch: those with faults as problems, the rest read.
fn read_sound_items(
    body: &[u8],
    faults: BTreeMap<usize, Vec<FieldError>>,
) -> Option<Vec<Result<EvidenceBatchItem, Problem>>> {
    struct Batch(BTreeMap<usize, Vec<FieldError>>);
    impl<'de> Visitor<'de> for Batch {
        type Value = Vec<Result<EvidenceBatchItem, Problem>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a batch")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            members.next_key::<IgnoredAny>()?;
            let items = members.next_value_seed(Items(self.0))?;
            match members.next_key::<IgnoredAny>()? {
                None => Ok(items),
                Some(_) => Err(A::Error::custom("another member")),
            }
        }
    }

    struct Items(BTreeMap<usize, Vec<FieldError>>);
    impl<'de> DeserializeSeed<'de> for Items {
        type Value = Vec<Result<EvidenceBatchItem, Problem>>;
        fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
            json.deserialize_seq(self)
        }
    }
    impl<'de> Visitor<'de> for Items {
        type Value = Vec<Result<EvidenceBatchItem, Problem>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of items")
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut json: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            loop {
                let item = match self.0.remove(&items.len()) {
                    Some(faults) => json.next_element::<IgnoredAny>()?.map(|_| Err(Problem::from_faults(faults))),
                    None => json.next_element_seed(Under(EvidenceBatchItem::SHAPE, PhantomData))?.map(Ok),
                };
                match item {
                    Some(item) => items.push(item),
                    None => return Ok(items),
                }
            }
        }
    }

    serde_json::Deserializer::from_slice(body).deserialize_map(Batch(faults)).ok()
}

#[cfg(test)]
mod tests;
