"""One file per model family, the whole forward in view.

A model knows nothing of parallelism, adapters, optimizers or files; a cache is an argument of its forward.
What a recipe's `model.family` may name stands in two lists: `FAMILIES` of language models, which are built from
sizes that one dial can give, and `NETWORKS` of all others, built from their options and from the shape of what goes
in and the number of what comes out, which the data says.
"""

from __future__ import annotations

from torch import nn

from groundup.models.agent import ActorCritic, ActorCriticOptions, SoftActorCritic, SoftActorCriticOptions
from groundup.models.autoencoder import Autoencoder, AutoencoderOptions
from groundup.models.bert import Bert, BertOptions
from groundup.models.board_network import PolicyValue, PolicyValueOptions
from groundup.models.convnet import Convnet, ConvnetOptions
from groundup.models.gan import Gan, GanOptions
from groundup.models.gpt2 import GPT2, GPT2Options
from groundup.models.inception import Inception, InceptionOptions
from groundup.models.linear import Linear, LinearOptions
from groundup.models.llama import Llama, LlamaOptions
from groundup.models.mlp import Mlp, MlpOptions
from groundup.models.moe import Moe, MoeOptions
from groundup.models.q_network import QNetwork, QNetworkOptions
from groundup.models.recurrent import Recurrent, RecurrentOptions
from groundup.models.recurrent_text import RecurrentText, RecurrentTextOptions
from groundup.models.resnet import Resnet, ResnetOptions
from groundup.models.vae import Vae, VaeOptions
from groundup.models.vit import Vit, VitOptions

FamilyOptions = LlamaOptions | GPT2Options | BertOptions | MoeOptions | RecurrentTextOptions

FAMILIES: dict[str, tuple[type[FamilyOptions], type[nn.Module]]] = {
    "llama": (LlamaOptions, Llama),
    "gpt2": (GPT2Options, GPT2),
    "bert": (BertOptions, Bert),
    "moe": (MoeOptions, Moe),
    "recurrent_text": (RecurrentTextOptions, RecurrentText),
}

READERS = ("bert", "recurrent_text")
"""The families that read and write no text: what they are for is the head on them."""

NetworkOptions = (
    LinearOptions
    | MlpOptions
    | ConvnetOptions
    | ResnetOptions
    | InceptionOptions
    | RecurrentOptions
    | VitOptions
    | AutoencoderOptions
    | VaeOptions
    | GanOptions
    | QNetworkOptions
    | ActorCriticOptions
    | SoftActorCriticOptions
    | PolicyValueOptions
)

NETWORKS: dict[str, tuple[type[NetworkOptions], type[nn.Module]]] = {
    "linear": (LinearOptions, Linear),
    "mlp": (MlpOptions, Mlp),
    "convnet": (ConvnetOptions, Convnet),
    "resnet": (ResnetOptions, Resnet),
    "inception": (InceptionOptions, Inception),
    "recurrent": (RecurrentOptions, Recurrent),
    "vit": (VitOptions, Vit),
    "autoencoder": (AutoencoderOptions, Autoencoder),
    "vae": (VaeOptions, Vae),
    "gan": (GanOptions, Gan),
    "q_network": (QNetworkOptions, QNetwork),
    "actor_critic": (ActorCriticOptions, ActorCritic),
    "soft_actor_critic": (SoftActorCriticOptions, SoftActorCritic),
    "policy_value": (PolicyValueOptions, PolicyValue),
}

PREDICTING = ("linear", "mlp", "convnet", "resnet", "inception", "recurrent", "vit")
"""The networks that answer with labels or numbers."""
