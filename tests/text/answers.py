"""Answers labelled by hand: what ``judge`` accepts and refuses is measured with them.

Those of `FAMILY` are published outputs of Audio Flamingo 3 and Music Flamingo (the documentation of transformers), or
written in their style. The others were written before the patterns, in as many wordings as came to mind. The half that
``is_held_out`` selects was not looked at while the patterns were written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Question(StrEnum):
    """What was asked, as far as it matters to the judgement."""

    CAPTION = "caption"
    LYRICS = "lyrics"
    SHORT = "short"  # a question with an answer of one line


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer, and whether it is fit to be saved."""

    text: str
    question: Question
    fit: bool

    @property
    def is_held_out(self) -> bool:
        """Whether it belongs to the half that no pattern was tuned on."""
        return hashlib.sha256(self.text.encode()).digest()[0] % 2 == 1


FAMILY = (
    # Published.
    "This energetic Eurodance anthem at 150 BPM in E major combines bright synth arpeggios with a punchy "
    "four-on-the-floor beat...",
    "This Eurodance track operates at 150 BPM in E major, with harmonic movement centering on the "
    "I-vi-IV-V family. The "
    "production features layered synth arpeggios, a four-on-the-floor kick pattern, and a "
    "mezzo-soprano lead vocal with "
    "bright timbre. Dynamically, the track builds through verses into an anthemic chorus with full synth orchestration "
    "and backing vocals, creating an uplifting, euphoric atmosphere characteristic of late 2000s dance-pop.",
    "This electronic pop track combines upbeat production with playful lyrical themes centered around late-night pizza "
    "cravings. The structure follows a verse-chorus format with recurring melodic motifs and rhythmic patterns that "
    "emphasize the celebratory, lighthearted mood of the piece.",
    "The track's calming and meditative feel can be attributed to its slow tempo, soft pads and long reverberation.",
    # In their style.
    "This track is a melodic techno piece at 122 BPM in A minor, built on a rolling bassline and a hypnotic arpeggio.",
    "The song is in G major at 96 BPM, moving through G - D - Em - C in the verses and C - D - G in the chorus.",
    "A lo-fi hip-hop instrumental with dusty drums, a detuned electric piano and vinyl crackle; there are no vocals.",
    "The vocals are too low in the mix to hear clearly, and the lyrics cannot be made out.",
    "An ambient drone; no drums can be heard, and no audio effects beyond a long reverb are present.",
    'The track opens with the sound of rain, and a voice says "I can\'t hear you" before the beat drops.',
    'The singer repeats "I cannot listen to this music anymore" over a sparse piano in C minor.',
    "Sorry-themed pop ballad: the lyrics apologise to a former lover over piano, strings and brushed drums.",
    "Unfortunately titled but charming, this indie rock song pairs jangly guitars with a dry, close vocal.",
    "Sound design is the focus here: granular textures, processed field recordings and a sub-bass that you feel more "
    "than you can hear.",
    "The genre is deep house, with jazzy Rhodes chords, a swung hi-hat pattern and a warm sub bass at 121 BPM.",
    "**Genre:** Synthwave\n**Tempo:** 108 BPM\n**Key:** F# minor\n**Mood:** nostalgic, nocturnal, driving",
    "1. Intro: filtered pads and vinyl noise.\n2. Verse: dry vocal over a Rhodes.\n3. Chorus: full "
    "band.\n4. Outro: fade.",
    "Intro (0:00-0:15), Verse 1 (0:15-0:45), Chorus 1 (0:45-1:15), Verse 2 (1:15-1:45), Chorus 2 (1:45-2:15), "
    "Verse 3 (2:15-2:45), Chorus 3 (2:45-3:15), Verse 4 (3:15-3:45), Chorus 4 (3:45-4:15), Outro (4:15-4:30).",
    "A traditional Irish reel played on fiddle and tin whistle, recorded live in a pub with audible audience chatter.",
    "The audio quality is low: hiss, clipping and a narrow bandwidth suggest a cassette recording of a punk rehearsal.",
    "The audio contains a single sine tone at 440 Hz that does not change; there is no rhythm and no harmony.",
    "A spoken-word piece in which a language model's voice reads poetry over modular synthesizer drones.",
    'Artificial intelligence is the theme: vocoded vocals proclaim "as an AI I feel no pain" over an electro beat.',
    "A cappella vocals without any accompaniment; the file ends abruptly in the middle of the chorus.",
    "The instruments are: nylon-string guitar (warm, close-miked), upright bass (round), shaker (dry), and a soft "
    "female voice that is doubled an octave above in the chorus.",
    "Chords: Am - F - C - G, Am - F - C - G, Am - F - C - G, Am - F - C - G in the verse; Dm - G - "
    "C - Am in the bridge.",
    "Bar 1: C major. Bar 2: A minor. Bar 3: F major. Bar 4: G major. Bar 5: E minor. Bar 6: D minor.",
    "The energy rises from a whispered verse to a wall of distorted guitars, falls in the bridge, and rises again.",
    "A trap beat at 140 BPM with 808 bass, fast hi-hat rolls and a dark bell melody; the mood is menacing.",
    "The mix is wide and modern, the drums are punchy, the bass is mono, and the vocal sits on top with a short plate.",
    "You can hear the room: this is a live recording of a string quartet playing a slow movement in D minor.",
    "Please note the unusual metre: the drums play in 7/8 while the bass implies 4/4.",
    "It cannot be determined whether the strings are sampled or played; they are warm and move in whole notes.",
    "No percussion is provided by drums; instead the rhythm comes from hand claps and the body of the guitar.",
    "Not much happens in the first minute: a field recording of waves, then a piano enters with "
    "single notes in E flat.",
    "The clip features a DJ-style transition; the first track is not audible after the 30-second mark.",
    "A remix whose original audio file seems to have been chopped into tiny samples and rearranged over a 2-step beat.",
    "Assistant engineer credits aside, this is a raw garage-rock take: one guitar, one snare, one shouted vocal.",
    "The user of this sample pack will recognise the loop: a dusty soul break at 88 BPM with a filtered horn stab.",
    "I hear a slow blues in E with a clean electric guitar, brushed drums and a Hammond organ in the background.",
    "I would describe this as progressive metal: 7-string riffs, shifting metres and a soaring tenor vocal.",
    "We hear a gentle waltz for solo piano, in A flat major at about 90 BPM, with a wistful and intimate mood.",
    "Warm.\nGentle.\nAcoustic guitar and voice, close and dry, at around 80 BPM.",
)
OTHER_GOOD = (
    "Ein ruhiges Klavierstück in a-Moll, etwa 70 BPM, mit viel Hall und einer melancholischen Stimmung.",
    "Une chanson pop en ré majeur à 118 BPM, avec une guitare acoustique, une batterie légère et une voix douce.",
    "Una cumbia alegre con acordeón, güiro y bajo eléctrico, a unos 95 BPM.",
    "静かなピアノの曲で、テンポは約70BPM、調はイ短調です。",
    "这是一首节奏轻快的流行歌曲，速度约为120BPM，使用了钢琴、吉他和鼓。",
    "이 곡은 잔잔한 피아노 발라드로, 템포는 약 72 BPM이며 분위기는 쓸쓸합니다.",
    "เพลงป๊อปจังหวะเร็ว มีเสียงกีตาร์และกลอง อารมณ์สดใส",
    "เพลงบรรเลงเปียโนช้าๆ",
    "यह एक धीमा शास्त्रीय गीत है। इसमें सितार और तबला हैं।",
    "यह एक धीमा गीत है।",
    "هذه أغنية عربية بطيئة مع عود وكمان وإيقاع هادئ.",
    "هل هذه موسيقى جاز؟ نعم، مع بيانو وكونترباص.",
    "Это медленная баллада с фортепиано и струнными, темп около 68 BPM.",
    "מוזיקה אלקטרונית מהירה עם בס עמוק ותופים.",
    "یک آهنگ آرام با سه‌تار و تنبک است.",
    "Very, very, very slow doom metal in drop C, at about 45 BPM.",
    "The drums drop out. The bass drops out. The pads drop out. Only the voice remains, and then silence.",
)
LYRICS_GOOD = (
    "I can't hear you calling my name\nthrough the rain and the static of the radio",
    "I can't hear the music anymore\nsince you walked out the door",
    "Sorry, I can't hear the sound\nof your footsteps on the ground",
    "I cannot listen to your lies\nI cannot look into your eyes",
    "System\nBring the system down\nSystem\nTurn it all around",
    "system\nbring the system down\nsystem\nturn it around",
    "User\nYou're a user, you're a loser\nI should have known",
    "[Verse 1]\nWalking down the avenue\nEvery light is blue\n\n[Chorus]\nHold me, hold me, hold me now\n" * 2,
    "Around the world, around the world\n" * 10,
    "No music plays without you\nNo song was given to me",
    "Please send me the song you sang\nthat summer when the church bells rang",
    "I'm only a machine, I can't feel the sound\nI'm spinning, I'm spinning, I'm spinning around",
    'The spoken content of the audio is "summer follows spring the days grow longer and the nights are warm".',
    "I am unable to sleep\nI'm unable to hear myself think\nunable to weep",
    "Sorry, sorry, sorry\nI'm not able to play this song again",
    "Unfortunately I can't stay\nthe music's fading anyway",
    "[Instrumental]\n[Verse]\nLa la la\nOh oh oh",
    "Now I hear the sound of silence in the hall\nno audience, no audience at all",
    "Bitte schick mir dein Lied\nbevor der Sommer flieht",
)
SHORT_GOOD = (
    "The 1980s.",
    "Yes.",
    "House",
    "120 BPM",
    "F# minor",
    "techno",
    "女性",
    "Two: a man and a woman.",
    "No vocals.",
    "No, no voice can be heard.",
    "ไม่มี",
    "हाँ।",
)
CANNOT_HEAR = (
    "I'm sorry, but I cannot listen to audio files.",
    "Unfortunately, I cannot listen to audio files. If you describe the track, I can help you write a caption.",
    "As a language model, I cannot hear audio.",
    "No audio was provided.",
    "As an AI, I don't have the ability to listen to music directly.",
    "As a text-based AI model, I am not able to process audio inputs.",
    "I don't have the capability to hear or analyze sound recordings.",
    "I am unable to play or analyze the audio you have attached.",
    "I apologize, but I can't access audio files or listen to music.",
    "My apologies, however I'm not capable of listening to tracks.",
    "It seems that no audio file has been attached to your message.",
    "It looks like you haven't uploaded an audio file yet. Please upload the track and I will describe it.",
    "There is no audio in your message, so I cannot describe the music.",
    "Could you please provide the audio file? I will then describe its genre, tempo, and key.",
    "Please upload the track you would like me to analyze.",
    "I didn't receive any audio. Can you share the recording again?",
    "I do not see any attached audio clip.",
    "The audio file did not come through.",
    "The audio appears to be missing from your request.",
    "Listening to audio is beyond my capabilities as a text model.",
    "My abilities are limited to text, so I can't evaluate the music itself.",
    "I can only process text, not sound.",
    "As an artificial intelligence, I lack ears and cannot perceive sound.",
    "I'm just a language model and can't listen to songs, but I can tell you about genres in general.",
    "Sure! However, I need the audio file in order to describe the track in full detail.",
    "Thanks for your question! Since I can't actually hear the track, I can only offer a general template.",
    "Without access to the audio, I can't determine the tempo or the key.",
    "Without being able to hear the track, it is impossible for me to name its genre.",
    "I would be happy to help, but I am unable to listen to the song.",
    "It is not possible for me to analyze audio content directly.",
    "I have no way of hearing the recording that you mention.",
    "Regrettably, I do not have access to the audio you are referring to.",
    "Hello! I'm an AI assistant and I can't process audio data at the moment.",
    "To describe the track, I would need you to share the audio or a link to it.",
    "If you could provide more details about the track, such as its title and artist, I could describe it.",
    "The provided audio cannot be accessed by me, so a description is not possible.",
    "Currently I do not support audio input.",
    "This model does not support audio input; please provide a transcript.",
    "I cannot directly listen to or interpret music, being a text-only assistant.",
    "Audio input is not supported.",
    "[No audio provided]",
    "I'm afraid I couldn't hear anything in the file you sent.",
    "I couldn't open the audio file. Please try sending it again.",
    "Oops, there doesn't seem to be an audio file attached.",
    "You have not provided any music for me to describe.",
    "We can't analyze a song without its audio; kindly attach it.",
    "Since the audio wasn't included, I will make up a plausible description: an upbeat pop song.",
    "I can't hear the music, but based on your request it might be a pop song with drums and guitars.",
    "As a large language model trained on text, I do not possess the ability to hear.",
    "I haven't been given any audio to work with.",
    "Being an AI language model, hearing music isn't something I can do.",
    "I regret to inform you that audio analysis is not something that I am able to perform.",
    "Lo siento, pero no puedo escuchar archivos de audio.",
    "Je suis désolé, mais je ne peux pas écouter de fichiers audio.",
    "Es tut mir leid, aber ich kann keine Audiodateien anhören.",
    "抱歉，我无法听取音频文件。",
    "对不起，作为一个语言模型，我不能听音乐。",
    "申し訳ありませんが、音声ファイルを聞くことはできません。",
    "죄송하지만 오디오 파일을 들을 수 없습니다.",
    "К сожалению, я не могу прослушивать аудиофайлы.",
)
CANNOT_HEAR_LYRICS = (
    "I'm sorry, but I cannot listen to audio files, so I can't transcribe the lyrics.",
    "As an AI language model, I am unable to hear the audio and transcribe it.",
    "No audio was provided, so there are no lyrics to transcribe.",
    "Please upload the audio file so that I can transcribe the lyrics.",
    "I cannot transcribe audio. If you paste the text of the song, I can format it as a lyric sheet.",
    "Unfortunately, I don't have access to the audio recording.",
    "I'm sorry, but I can't provide the lyrics because I can't process audio.",
    "There is no audio file attached to this conversation.",
)
LOOPS = (
    " ".join(f"Section {number}: guitar." for number in range(1, 41)),
    " ".join(f"{number}. The guitar plays a melody." for number in range(1, 20)),
    " ".join(
        f"From 0:{s:02d} to 0:{s + 5:02d} the drums play a steady beat with kick and snare." for s in range(0, 55, 5)
    ),
    " ".join(f"At {number} seconds the synth enters with a warm pad." for number in range(10, 100, 10)),
    "First verse: guitar and bass. Second verse: guitar and bass. Third verse: guitar and bass. Fourth verse: guitar "
    "and bass. Fifth verse: guitar and bass. Sixth verse: guitar and bass. Seventh verse: guitar "
    "and bass. Eighth verse: "
    "guitar and bass. Ninth verse: guitar and bass.",
    "The song has a slow tempo and a sad mood. " * 8,
    "这首歌很好听" * 12,
    "この曲は静かで美しい" * 10,
    "钢琴和吉他，" * 20,
    "เพลงช้าและเศร้า" * 12,
    "यह गीत धीमा है। " * 14,
    "drums, bass, guitar, " * 25,
    "A warm pad. " + "and a warm pad " * 20,
    "The beat goes on and on. " + "on and on " * 40,
    "nanananana " * 60,
    "잔잔한 피아노 " * 30,
    "The track has drums. The track has bass. The track has pads. The track has drums. The track "
    "has bass. The track has "
    "pads. The track has drums. The track has bass. The track has pads. The track has drums. The track has bass. The "
    "track has pads.",
    "Strophe 1: Klavier und Bass. " + " ".join(f"Strophe {n}: Klavier und Bass." for n in range(2, 16)),
    " ".join(f"[{n}:00] The same chord progression repeats with the same drums." for n in range(9)),
    "啊" * 80,
    "轻柔的钢琴旋律缓缓流动" + "缓缓流动" * 20,
)
LYRIC_LOOPS = ("la la la la\n" * 80, "oh yeah baby come on\n" * 60, "你好世界\n" * 60)
BROKEN = (
    "",
    "...",
    "Pop.",
    "**",
    "music",
    "A calm piece.\nuser\nWhat else?\nassistant\nDrums.",
    "Assistant: The track is a calm piece for piano.",
    "user: describe this track\nassistant: It is a calm piece.",
    "A calm <|im_start|> piece of music for piano.",
    "A calm pi\ufffd\ufffd\ufffdce of music with drums.",
    "Nice piece.\nassistant\nAnother piece.",
    "[INST] Describe this track [/INST] A calm piece.",
    "ช้า",
    "曲",
    "\u200b\u200b\u200b",
)
BROKEN_LYRICS = (
    "user\nTranscribe the lyrics.\nassistant\nWalking down the avenue",
    "assistant\nWalking down the avenue",
    "...",
)


def _all() -> list[Labelled]:
    groups = (
        (FAMILY + OTHER_GOOD, Question.CAPTION, True),
        (LYRICS_GOOD, Question.LYRICS, True),
        (SHORT_GOOD, Question.SHORT, True),
        (CANNOT_HEAR + LOOPS + BROKEN, Question.CAPTION, False),
        (CANNOT_HEAR_LYRICS + LYRIC_LOOPS + BROKEN_LYRICS, Question.LYRICS, False),
    )
    return [Labelled(text, question, fit) for texts, question, fit in groups for text in texts]


ANSWERS = _all()
