//! Where requests state what they will cost: images, media seconds, rerank documents.
//!
//! StartAsyncInvoke wraps the model's own request in `modelInput`, so its table is the same one level down.
//! Source: AWS's model parameters for Titan Image, Nova Canvas, Stability, Marengo 2.7 and 3.0, Nova embeddings, Nova
//! Reel and Luma Ray; RerankRequest of botocore 1.44.5.

use super::super::json_scan::{self, Want};
use super::super::request::Detail;

pub(in crate::usage) type Site = json_scan::Site<(), Detail>;
type Member = json_scan::Member<Detail>;

const fn number(name: &'static str, field: Detail) -> Member {
    Member { name, want: Want::Number, field }
}

const fn text(name: &'static str, field: Detail) -> Member {
    Member { name, want: Want::Text, field }
}

/// Only whether it is there; its text may be megabytes.
const fn presence(name: &'static str, field: Detail) -> Member {
    Member { name, want: Want::Length, field }
}

const fn elements(name: &'static str, field: Detail) -> Member {
    Member { name, want: Want::Elements, field }
}

const ROOT: &[Member] = &[
    number("width", Detail::Width),
    number("height", Detail::Height),
    number("steps", Detail::Steps),
    number("samples", Detail::Images),
    presence("inputImage", Detail::Image),
    text("inputType", Detail::InputType),
    text("taskType", Detail::Task),
    number("startSec", Detail::Start),
    number("endSec", Detail::End),
    number("lengthSec", Detail::Length),
    text("duration", Detail::Length),
    elements("documents", Detail::Documents),
];

const IMAGE_GENERATION: &[Member] = &[
    number("numberOfImages", Detail::Images),
    number("width", Detail::Width),
    number("height", Detail::Height),
    text("quality", Detail::Quality),
];

const SPAN: &[Member] =
    &[number("startSec", Detail::Start), number("endSec", Detail::End), number("lengthSec", Detail::Length)];

const EMBEDDING: &[Member] =
    &[presence("image", Detail::Image), presence("video", Detail::Video), presence("audio", Detail::Audio)];

const VIDEO_GENERATION: &[Member] = &[number("durationSeconds", Detail::Length)];

const SHOTS: &[Member] = &[elements("shots", Detail::Shots)];

pub(in crate::usage) const INVOKE: &[Site] = &[
    Site { path: &[], role: (), members: ROOT },
    Site { path: &["imageGenerationConfig"], role: (), members: IMAGE_GENERATION },
    Site { path: &["video"], role: (), members: SPAN },
    Site { path: &["audio"], role: (), members: SPAN },
    Site { path: &["singleEmbeddingParams"], role: (), members: EMBEDDING },
];

pub(in crate::usage) const ASYNC: &[Site] = &[
    Site { path: &[], role: (), members: &[text("modelId", Detail::ModelId)] },
    Site { path: &["modelInput"], role: (), members: ROOT },
    Site { path: &["modelInput", "imageGenerationConfig"], role: (), members: IMAGE_GENERATION },
    Site { path: &["modelInput", "video"], role: (), members: SPAN },
    Site { path: &["modelInput", "audio"], role: (), members: SPAN },
    Site { path: &["modelInput", "singleEmbeddingParams"], role: (), members: EMBEDDING },
    Site { path: &["modelInput", "segmentedEmbeddingParams"], role: (), members: EMBEDDING },
    Site { path: &["modelInput", "videoGenerationConfig"], role: (), members: VIDEO_GENERATION },
    Site { path: &["modelInput", "multiShotManualParams"], role: (), members: SHOTS },
];

pub(in crate::usage) const RERANK: &[Site] = &[
    Site {
        path: &[],
        role: (),
        members: &[elements("sources", Detail::Documents), elements("queries", Detail::Queries)],
    },
    Site {
        path: &["rerankingConfiguration", "bedrockRerankingConfiguration", "modelConfiguration"],
        role: (),
        members: &[text("modelArn", Detail::ModelId)],
    },
];
