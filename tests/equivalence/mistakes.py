"""Help texts, and command lines that are refused with a sentence and exit code 2."""

from __future__ import annotations

from tests.equivalence.cases import Case, case, each

HELP = each(
    "help",
    """
--help
caption --help
ask -h
embed --help
convert --help
doctor --help
--version
""",
)

USAGE = each(
    "usage",
    """
captoin photos
caption
caption photos --modle tiny
caption photos --model
caption photos --model tiny --batch-size many
caption photos --model tiny --batch-size 0
caption photos --model tiny --batch-size=-1
caption photos --model tiny --workers=-1
caption photos --model tiny --limit 0
caption photos --model tiny --errors nowhere
caption photos --model tiny --dtype float8
caption photos --model tiny --dtype float16
caption photos --model tiny-t5 --dtype float16
caption photos --model tiny --device gpu
caption photos --model tiny --device cuda
caption photos --model tiny --device meta
caption photos --model tiny --quantize int4
caption photos --model tiny --quantize int2
caption photos --model tiny --max-duration soon
caption photos --model tiny --max-duration 0s
caption photos --model tiny --max-errors few
caption photos --model tiny --max-errors 101%
caption photos --model tiny --image-timeout 0
caption photos --model tiny --image-timeout 5 --workers 0
caption photos --model tiny -q -v
caption photos --model tiny --log-json -q
caption photos --model tiny --log-json --dry-run
caption photos --model tiny --resume
caption photos --model tiny --retry-errors -o c.jsonl --errors inline
caption photos --model tiny --resume --overwrite -o c.jsonl
caption photos --model tiny --preset paper-vqa
doctor --image photos/cats.png
doctor --revision main
doctor --model nowhere/at all
doctor --model missing-model
doctor --model tiny --image blank.txt
doctor --model tiny --dtype float16
doctor --json --quiet
""",
)

DECODING = each(
    "decoding",
    """
caption photos --model tiny --num-beams 0
caption photos --model tiny --num-beams 3 --temperature 1
caption photos --model tiny --num-captions 2
caption photos --model tiny --num-captions 3 --num-beams 2
caption photos --model tiny --length-penalty 2
caption photos --model tiny --length-penalty nan --num-beams 2
caption photos --model tiny --temperature 0
caption photos --model tiny --temperature=-1
caption photos --model tiny --top-p 1.5
caption photos --model tiny --top-k 0
caption photos --model tiny --max-new-tokens 0
caption photos --model tiny --max-new-tokens 100000
caption photos --model tiny --min-new-tokens 40
caption photos --model tiny --repetition-penalty 0
caption photos --model tiny --no-repeat-ngram-size=-1
caption photos --model tiny --seed x
caption photos --model tiny-itm
caption photos --model tiny --prompt 'zzzz {answer}' --dry-run
ask photos --model tiny
ask photos --model tiny -q ''
ask photos --model tiny -q a --questions questions.txt
ask photos --model tiny --questions none.txt
ask photos --model tiny --questions list0.dat
ask photos --model tiny --questions blank.txt
ask photos --model tiny --questions latin.txt
ask photos --model tiny --questions bad.jsonl
ask photos --model tiny --questions bad.csv
ask photos --model tiny --questions strangers.jsonl
ask photos --model tiny --questions questions.jsonl --include '*.webp'
ask photos --model tiny -q a --choices one
ask photos --model tiny -q a --choices one,one
ask photos --model tiny -q a --choices one,,two
ask photos --model tiny -q a --choices a,b --choices-file choices.txt
ask photos --model tiny -q a --choices-file none.txt
ask photos --model tiny -q a --choices-file one.txt
ask photos --model tiny -q a --choices-file twice.txt
ask photos --model tiny -q a --choices-file latin.txt
ask photos --model tiny -q a --choices a,b --num-beams 3
ask photos --model tiny -q a --choices a,b --temperature 1
ask photos --model tiny -q a --choices a,b --max-new-tokens 4
ask photos --model tiny -q a --choices a,b --retry-degenerate
ask photos --model tiny -q a --choice-norm mean
ask photos --model tiny -q a --match
ask photos --model tiny -q a --choices a,b --match
ask photos --model tiny -q a --template none
ask photos --model tiny -q 'what {answer}?'
ask photos --model tiny -q 'what?' -q '{answer} {history} {history}' --limit 1
ask photos --model tiny-itm -q 'how many?'
ask photos --model tiny-itm --choices a,b --template '{question}'
ask photos --model tiny-itm --choices a,b --choice-norm mean
ask photos --model tiny-itm --choices a,b --preset paper-vqa
ask photos --model tiny -q a --num-captions 2
embed --model tiny
embed photos --model tiny --text a
embed photos --model tiny --kind multimodal
embed photos --model tiny --kind multimodal --text a
embed photos --model tiny --kind projection
embed photos --model tiny-itm --kind language
embed photos --model tiny --kind language
embed photos --model tiny --kind image --pool none
embed --text a --texts texts.txt --model tiny
embed --text '' --model tiny
embed --texts none.txt --model tiny
embed --texts bad.csv --model tiny
embed --text a --model tiny --kind image
embed --text a --model tiny --kind projection
embed --text a --model tiny --pool cls
embed --text a --model tiny --limit 3
embed --text a --model tiny --keep x
embed --text a --model tiny --workers 2
embed --text a --model tiny --include x --fast-decode
embed --text a --model tiny --errors inline
embed --text a --model tiny -o t.jsonl --resume
embed --text a --model tiny -o t.jsonl --retry-errors
embed --text a --model tiny -o t.jsonl --max-errors 3
embed photos --kind multimodal --model tiny-itm --text a --text a --limit 1
embed photos --kind words --model tiny
""",
)

SOURCES = each(
    "source",
    """
caption none --model tiny
caption '' --model tiny
caption empty --model tiny
caption 'photos/*.tif' --model tiny
caption 'none/*.png' --model tiny
caption photos '*.tif' --model tiny
caption 'photos/**/../*.png' --model tiny
caption photos --model tiny --include '*.tif'
caption photos --model tiny --exclude '*'
caption photos --model tiny -0
caption - --model tiny
caption bad.csv --model tiny
caption bad.jsonl --model tiny -o c.jsonl
caption bad.parquet --model tiny
caption bad.zip --model tiny
caption bad.tar --model tiny
caption blank.txt --model tiny
caption rows.jsonl --model tiny
caption list.csv --model tiny --keep none
caption list.csv --model tiny --keep sku --keep sku
caption list.csv --model tiny --keep caption
caption list.csv --model tiny --image-column none
caption photos --model tiny --keep sku
caption photos --model tiny --image-column image
caption images.parquet --model tiny --image-column note
caption images.parquet --model tiny --keep image
caption photos.zip --model tiny --keep x
caption nosuch://bucket/x --model tiny
caption s3://user:secret@bucket/x --model tiny
caption s3:// --model tiny
caption 's3://*/x' --model tiny
caption s3://bucket/a gs://other/b --model tiny
caption photos --model none
caption photos --model owner/none
caption photos --model photos
caption photos --model tiny --revision main
caption photos --model tiny -o photos
caption photos --model tiny -o c.txt
caption photos --model tiny -o none/c.jsonl
caption photos --model tiny -o list.jsonl
caption photos --model tiny -o photos/cats.png
caption photos --model tiny -o s3://bucket/c.jsonl
caption photos --model tiny -o c.jsonl --summary none/s.json
caption photos --model tiny -o c.jsonl --summary c.jsonl
caption photos --model tiny --summary list.csv
caption photos --model tiny --overwrite
""",
)

CONVERSIONS = each(
    "conversion",
    """
convert
convert list.jsonl
convert none.jsonl out.csv
convert rows.jsonl out.xyz
convert rows.jsonl out.csv --to xyz
convert rows.jsonl rows.jsonl
convert rows.jsonl out --to imagefolder
convert rows.jsonl out --to sidecar
convert rows.jsonl out.json
convert rows.jsonl out.json --to coco
convert rows.jsonl out.json --to vqa
convert rows.jsonl out.json --to llava
convert rows.jsonl out.npy
convert rows.jsonl out.tar
convert rows.jsonl out.csv --shard-size 3
convert rows.jsonl out.csv --prefix x
convert rows.jsonl out.csv --image-root photos
convert rows.jsonl out.csv --id-column a
convert rows.jsonl out.csv --dtype float32
convert rows.jsonl out.csv --check
convert rows.jsonl out.csv --quiet --verbose
convert rows.jsonl out.csv --text-column none
convert twice.jsonl out.csv
convert twice.jsonl out.json --to coco
convert bad.jsonl out.csv
convert bad.parquet out.csv
convert bad.csv out.jsonl
convert photos out.jsonl
convert photos out.jsonl --from sidecar
convert empty out.jsonl
convert rows.jsonl list.csv
convert rows.jsonl none/out.csv
convert bad.pth new
convert bad.pth new --like none
convert tiny new.pth --dtype float32
convert tiny tiny-t5 new
convert tiny photos
convert tiny new --quantize int4
convert tiny new --max-shard-size lots
convert tiny new --max-shard-size 0
convert tiny new --like tiny
convert tiny new --prefix x
convert none new
convert tiny new.csv
convert tiny-itm new --language-model none
""",
)

ENVIRONMENT = (
    Case("usage: nothing", ("",), loads=False),
    case("environment: number", "caption photos", env={"BLIP2CLI_BATCH_SIZE": "many"}),
    case("environment: choice", "caption photos", env={"BLIP2CLI_DTYPE": "float8"}),
    case("environment: flag", "caption photos", env={"BLIP2CLI_RESUME": "perhaps"}),
    case(
        "environment: beams and length",
        "caption two --model tiny --max-new-tokens 4 --dry-run",
        env={"BLIP2CLI_NUM_BEAMS": "2", "BLIP2CLI_LENGTH_PENALTY": "2"},
    ),
    case(
        "environment: quiet and JSON",
        "caption two --dry-run\ndoctor",
        env={"BLIP2CLI_QUIET": "1", "BLIP2CLI_MODEL": "tiny", "BLIP2CLI_JSON": "1"},
    ),
    case(
        "environment: offline hub",
        "caption two --dry-run",
        env={"BLIP2CLI_MODEL": "Salesforce/blip2-opt-2.7b"},
    ),
)

MISTAKES = HELP + USAGE + DECODING + SOURCES + CONVERSIONS + ENVIRONMENT
