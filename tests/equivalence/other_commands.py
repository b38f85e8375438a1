"""Command lines that embed, convert or examine: every kind of vector, format and checkpoint."""

from __future__ import annotations

from tests.equivalence.cases import case

EMBED = (
    case("embed images", "embed photos --model tiny -o v.parquet"),
    case("embed to JSON", "embed two --model tiny --pool mean --normalize -o v.jsonl"),
    case("embed on a terminal", "embed two --model tiny", terminal=True),
    case("embed queries", "embed two --model tiny --kind qformer -o v.parquet"),
    case("embed all queries", "embed two --model tiny --kind qformer --pool none --normalize"),
    case("embed in halves", "embed two --model tiny --embedding-dtype float16 -o v.parquet"),
    case(
        "embed projections",
        """
embed two --model tiny-itm --kind projection -o v.parquet
embed two --model tiny-itm --kind projection --pool none -q
""",
    ),
    case(
        "embed texts",
        """
embed --texts texts.txt --model tiny-itm -o t.parquet
embed --texts texts.jsonl --model tiny-itm --pool mean --overwrite -o t.parquet
embed --text 'two cats' --text 'a fish' --model tiny --summary s.json
embed --texts texts.csv --model tiny-t5 --normalize -o t.jsonl -v
embed --texts texts.csv --model tiny-itm --kind qformer --dry-run
embed --text 'two cats' --model tiny --log-json
""",
    ),
    case(
        "embed pairs",
        """
embed two --kind multimodal --texts texts.txt --model tiny-itm -o p.parquet
embed mixed --kind multimodal --text 'a cat' --pool none --model tiny-itm -o p.jsonl
""",
    ),
    case("embed damaged images", "embed mixed --model tiny --errors inline -o v.parquet"),
    case(
        "resume vectors",
        """
embed photos --model tiny -o v.parquet --limit 2 -q
embed photos --model tiny -o v.parquet --resume
embed photos --model tiny -o v.parquet --resume --normalize
""",
    ),
)

CONVERT = (
    case(
        "convert tables",
        """
caption photos --model tiny -o c.jsonl -q
convert c.jsonl c.parquet
convert c.parquet c.csv
convert c.csv c.tsv -v
convert c.tsv d.jsonl.gz -q
convert d.jsonl.gz d.parquet
convert c.jsonl c.csv
convert c.jsonl c.csv --overwrite
caption photos --model tiny -o d.parquet --resume
""",
    ),
    case(
        "convert answers",
        """
ask photos --model tiny -q "how many cats are there?" -q "is there a dog?" --choices yes,no \
    -o a.jsonl --quiet
convert a.jsonl a.csv
convert a.csv a.parquet
convert a.jsonl train.json --to llava
convert a.jsonl vqa.json --to vqa
convert c.jsonl a.jsonl all.jsonl
""",
    ),
    case(
        "convert with images",
        """
caption photos --model tiny -o c.jsonl -q
convert c.jsonl set --to imagefolder --image-root photos
convert c.jsonl set2 --to imagefolder --image-root photos --images copy --metadata parquet
convert set back.jsonl
convert c.jsonl photos --to imagefolder
convert c.jsonl shards.tar --image-root photos --shard-size 2
convert c.jsonl images2.parquet --to image-parquet --image-root photos
convert c.jsonl side --to sidecar --prefix 'photo of ' --suffix .
convert side side.csv --from sidecar
convert c.jsonl photos --to sidecar --sidecar-suffix .caption
""",
    ),
    case(
        "convert to COCO",
        """
caption two --model tiny -o c.jsonl -q
!echo '{"cats.png": 5, "night.png": 9}' > ids.json
convert c.jsonl coco.json --to coco --id-map ids.json
convert c.jsonl coco2.json --to coco
convert c.jsonl coco2.json --to coco --id-map noid.json
!echo '{"images": [{"id": 5, "file_name": "cats.png"}]}' > ann.json
convert c.jsonl coco3.json --to coco --annotations ann.json
""",
    ),
    case(
        "convert vectors",
        """
embed photos --model tiny -o v.parquet -q
convert v.parquet v.npy
convert v.npy w.jsonl
convert v.parquet clip --to clip-retrieval --shard-size 2
convert clip clip.parquet --from clip-retrieval
convert v.parquet v.csv
""",
    ),
    case(
        "convert and merge",
        """
caption photos --model tiny --limit 3 -o part1.jsonl -q
caption photos --model tiny --include '*.webp' -o part2.jsonl -q
convert 'part*.jsonl' all.parquet
convert part1.jsonl part1.jsonl part2.jsonl all.csv
ask photos --model tiny -q "how many cats are there?" -q "is there a dog?" --limit 1 \
    -o a.jsonl --quiet
convert part1.jsonl a.jsonl mixed.jsonl
!head -c 250 part1.jsonl > torn.jsonl
convert torn.jsonl torn.csv
""",
    ),
)

CHECKPOINTS = (
    case(
        "convert a checkpoint to LAVIS",
        """
convert tiny tiny.pth
convert tiny.pth mine --like tiny --check
caption two --model mine
convert tiny.pth other
convert mine mine2 --max-shard-size 5MB --dtype bfloat16 --check
convert mine mine2
""",
    ),
    case(
        "convert a checkpoint to eight bits",
        """
convert tiny eight --quantize int8 --check -v
caption two --model eight -v
caption two --model eight --quantize int8 -q
convert eight plain -q
""",
    ),
    case(
        "convert T5 and retrieval checkpoints",
        """
convert tiny-t5 t5.pth -q
convert t5.pth t5 --like tiny-t5
convert tiny-itm itm.pth -q
convert itm.pth itm --like tiny-itm --check
ask two --model itm --choices cat,dog -q
""",
    ),
    case(
        "broken checkpoints",
        """
convert tiny mine -q
!rm mine/tokenizer.json
caption two --model mine
!echo '{}' > mine/config.json
caption two --model mine
!rm mine/config.json
caption two --model mine
convert bad.pth new
""",
    ),
)

DOCTOR = (
    case("doctor", "doctor"),
    case("doctor as JSON", "doctor --json"),
    case("doctor of tiny", "doctor --model tiny"),
    case("doctor of T5 as JSON", "doctor --model tiny-t5 --json -v"),
    case("doctor of a retrieval model", "doctor --model tiny-itm --json"),
    case("doctor in bfloat16", "doctor --model tiny --dtype bfloat16 --image photos/cats.png"),
    case(
        "doctor of a broken model",
        """
convert tiny mine -q
!sed -i 's/"image_token_index": [0-9]*/"image_token_index": 3/' mine/config.json
!sed -i 's/1e-06/1e-05/' mine/config.json
doctor --model mine
doctor --model mine --json
!rm mine/tokenizer.json
doctor --model mine
""",
    ),
)

OTHER_COMMANDS = EMBED + CONVERT + CHECKPOINTS + DOCTOR
